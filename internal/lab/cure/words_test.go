package cure

import (
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	for command, want := range map[string]string{
		"nsenter --net=/proc/77/ns/net sysctl -w net.ipv4.ip_forward=1":                               "",
		"ip netns exec blue ip link set dev eth0 mtu 1400   # as long as GATEWAY allows":              "",
		"sysctl -w net.ipv4.udp_mem=\"1 2 3\"; echo 4 > /sys/module/nf_conntrack/parameters/hashsize": "",
		"nsenter --net=/proc/7/ns/net iptables -I INPUT -p udp --dport 53 -j ACCEPT":                  "",
		"nsenter --net=/proc/7/ns/net nft 'add chain ip lab x { policy drop; }'":                      "",
		"tc filter del dev lab0 ingress pref 49152 handle 0xABCD":                                     "",
		"nsenter --net=/proc/7/ns/net ip route add 192.0.2.0/24 via GATEWAY":                          "GATEWAY",
		"ip link add link eth0 name eth0.VID type vlan id VID":                                        "eth0.VID",
		"tc class change dev eth0 parent P classid C htb rate 1mbit":                                  "P is to be",
		"nsenter --net=/proc/7/ns/net iptables -I CHAIN -j ACCEPT":                                    "CHAIN",
		"ip rule add from OUTPUT":                   "OUTPUT",
		"systemctl start SERVICE":                   "systemctl",
		"listen(fd, 128)   # backlog":               `"listen"`,
		"bind the socket to 0.0.0.0":                `"bind"`,
		"nsenter --net=/proc/7/ns/net tcpdump -c 5": "tcpdump",
		"ip route add …":                            "left out",
		"echo 'open":                                "not closed",
		"":                                          "no command",
		"# only a note":                             "no command",
		"ip link set dev eth0 up && start the service": `"start"`,
	} {
		err := Complete(command)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", command, err, want)
		}
	}
}

func TestWithin(t *testing.T) {
	const in = "nsenter --net=/proc/77/ns/net "
	for command, want := range map[string]string{
		in + "sysctl -w net.ipv4.ip_forward=1":                                             "",
		in + "nft 'add rule ip a b tcp dport { 1, 2 } accept; list ruleset'   # and; then": "",
		in + "ip rule; " + in + "ip route show table all":                                  "",
		in + "nft -a list ruleset | grep -wi -e queue":                                     "",
		in + "true && " + in + "ip link":                                                   "true may do",
		"sysctl -w net.core.rmem_max=1":                                                    "whole host",
		in + "ip link; sysctl -w net.core.rmem_max=1":                                      "whole host",
		in + "ip link && reboot":                                                           "whole host",
		in + "ip link\nreboot":                                                             "whole host",
		in + "ip link | sh":                                                                "whole host",
		in + "ip link & reboot":                                                            "has &",
		in + "ip link > /etc/passwd":                                                       "file",
		in + "ip link >> /etc/passwd":                                                      "file",
		in + "ip link $(reboot)":                                                           "work out",
		in + "ip link `reboot`":                                                            "work out",
		in + "(reboot)":                                                                    "whole host",
		in + "ip link (reboot)":                                                            "has (",
		in + "ip netns exec blue reboot":                                                   "reaches out",
		in + "ip link set dev lab0 netns 1":                                                "reaches out",
		in + "ip -n blue link":                                                             "reaches out",
		in + "ip vrf exec blue reboot":                                                     "reaches out",
		in + "tc -netns blue qdisc":                                                        "reaches out",
		in + "iptables --modprobe=reboot -L":                                               "reaches out",
		in + "sysctl -w kernel.panic=1":                                                    "reaches out",
		in + "sysctl --system":                                                             "reaches out",
		in + "sysctl -w net/ipv4/ip_forward=1":                                             "",
		in + "ss -nlt":                                                                     "",
		in + "reboot":                                                                      "reboot may do",
		in + "sh -c 'ip link'":                                                             "sh may do",
		"nsenter --net=/proc/7/ns/net ip link":                                             "another namespace",
		"nsenter --net=/proc/77/ns/net/../../../1/ns/net ip a":                             "another namespace",
		"nsenter --net=/proc/77/ns/net":                                                    "whole host",
		"nsenter --mount=/proc/1/ns/mnt ip link":                                           "whole host",
		"ip netns exec blue ip link":                                                       "another namespace",
		in + "ip 'link":                                                                    "not closed",
		"":                                                                                 "no command",
	} {
		err := Within(command, 77)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", command, err, want)
		}
	}
}

// Whatever the text, what is said to stay within has nothing for the shell in
// it but words that begin with nsenter.
func FuzzWithin(f *testing.F) {
	for _, s := range []string{"", "nsenter --net=/proc/77/ns/net ip link", "a;b", "'a\"b'", "a && b | c # d\ne"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, command string) {
		_ = Complete(command)
		if Within(command, 77) != nil {
			return
		}
		if !strings.HasPrefix(strings.TrimLeft(command, " \t\n;&|#'\""), "nsenter") && !strings.Contains(command, "nsenter --net=/proc/77/ns/net") {
			t.Errorf("%q", command)
		}
		if strings.ContainsAny(command, "`$\\") {
			t.Errorf("%q", command)
		}
	})
}

func TestReads(t *testing.T) {
	const in = "nsenter --net=/proc/77/ns/net "
	for command, want := range map[string]bool{
		in + "nstat -az UdpRcvbufErrors Udp6RcvbufErrors   # must not grow": true,
		in + "ss -uanmp \"sport = :7777\"":                                  true,
		in + "ss -K dport 7":                                                false,
		in + "ip -s link show dev lab0":                                     true,
		in + "ip link set dev lab0 down":                                    false,
		in + "ip rule; " + in + "ip route show table all":                   true,
		in + "tc -s qdisc show dev lab0":                                    true,
		in + "tc qdisc del dev lab0 root":                                   false,
		in + "bridge -d link show dev lab0":                                 true,
		in + "nft list ruleset | grep drop":                                 true,
		in + "nft flush ruleset":                                            false,
		in + "grep FRAG /proc/net/sockstat /proc/net/sockstat6":             true,
		"grep UDP: /proc/net/sockstat   # mem":                              true,
		"cat /proc/net/softnet_stat > /tmp/x":                               false,
		"lnstat -c1 -f arp_cache -k res_failed":                             true,
		"sysctl net.ipv4.ip_forward":                                        true,
		"sysctl -w net.ipv4.ip_forward=1":                                   false,
		"sysctl net.ipv4.ip_forward=1":                                      false,
		"conntrack -S":                                                      true,
		"conntrack -F":                                                      false,
		"ethtool -S eth0":                                                   true,
		"ethtool -K eth0 tx off":                                            false,
		"iptables -L -nv":                                                   true,
		"iptables -F":                                                       false,
		"whydrop diagnose --duration 10s":                                   false,
		"ip link show dev DEV":                                              false,
		"bpftool prog show":                                                 true,
		"cat 'x":                                                            false,
		"":                                                                  false,
	} {
		if err := Reads(command); (err == nil) != want {
			t.Errorf("%q: %v, want %v", command, err, want)
		}
	}
}
