//go:build root

package fact

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// tracked is a ruleset that tracks, marks and puts flows into a zone.
const tracked = `
table inet t {
	chain raw {
		type filter hook output priority -300
		udp dport 77 ct zone set 7
	}
	chain out {
		type filter hook output priority 0
		udp dport 9 ct mark set 0x10
		ct state new accept
	}
}
table ip nat {
	chain out {
		type nat hook output priority -100
		udp dport 5353 dnat to 127.0.0.2:53
	}
}
`

// flows makes entries: of UDP with and without an answer, of TCP in several
// states, of ICMP, of IPv6, and one that is translated.
func flows(t *testing.T) {
	t.Helper()
	for _, to := range []string{"127.0.0.1:9", "127.0.0.1:77", "127.0.0.1:5353", "[::1]:9"} {
		c, err := net.Dial("udp", to)
		must(t, err)
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		must(t, err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	for i := range 3 {
		c, err := net.Dial("tcp4", l.Addr().String())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		server, err := l.Accept()
		must(t, err)
		t.Cleanup(func() { server.Close() })
		if i == 1 {
			must(t, c.(*net.TCPConn).CloseWrite())
		}
	}
	for _, family := range []struct {
		domain, proto int
		to            unix.Sockaddr
		kind          byte
	}{{unix.AF_INET, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 8}, {unix.AF_INET6, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}, 128}} {
		fd, err := unix.Socket(family.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family.proto)
		must(t, err)
		defer unix.Close(fd)
		echo := []byte{family.kind, 0, 0, 0, 0x12, 0x34, 0, 1}
		sum := uint32(family.kind)<<8 + 0x1234 + 1
		if family.domain == unix.AF_INET { // of ICMPv6 the kernel makes the sum
			echo[2], echo[3] = ^byte(sum>>8), ^byte(sum)
		}
		must(t, unix.Sendto(fd, echo, 0, family.to))
	}
}

func TestEntriesMatchConntrack(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		for name, value := range map[string]string{
			"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.lo.disable_ipv6": "0",
		} {
			must(t, n.Sysctl(name, value))
		}
		firewallTool(t, tracked, "nft", "-f", "-")
		must(t, n.Sysctl("net.netfilter.nf_conntrack_acct", "1"))
		must(t, n.Sysctl("net.netfilter.nf_conntrack_timestamp", "1"))
		within(t, "the address of IPv6 can be used", func() bool {
			c, err := net.Dial("udp", "[::1]:10")
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		flows(t)
		// A second may end between the two lists.
		within(t, "both say the same", func() bool {
			want := conntrackList(t, firewallTool(t, "", "conntrack", "-L", "-o", "extended,id"))
			got := facts(t, "conntrack-entries", "")
			diff := gocmp.Diff(want, shownFields(got[1:]))
			if diff != "" {
				t.Logf("conntrack (-) and whydrop (+), which may be of another second: %s", diff)
			}
			count := strings.TrimSpace(firewallTool(t, "", "conntrack", "-C"))
			full := named(t, facts(t, "conntrack", ""), "conntrack")
			if got[0].Value != strconv.Itoa(len(want)) || count != full.Value || count != got[0].Value || full.Fields["max"] == "" || full.Fields["buckets"] == "" {
				t.Fatalf("%d entries, conntrack counts %s: %+v %+v", len(want), count, got[0], full)
			}
			return diff == "" && len(want) >= 9
		})
		for filter, want := range map[string]int{
			"udp": 4, "tcp": 3, "TCP 127.0.0.1": 3, "127.0.0.1:9": 1, "udp 127.0.0.1 :9": 1, ":9": 2, "::1 :9": 1, "[::1]:9": 1, "127.0.0.2:53": 1,
			"127.0.0.1:5353": 1, "192.0.2.1": 0, "icmp": 1, "icmpv6": 1, ":53 :5353": 1, "tcp :9": 0,
		} {
			if got := facts(t, "conntrack-entries", filter); got[0].Value != strconv.Itoa(want) || len(got) != want+1 {
				t.Errorf("%q: %+v", filter, got)
			}
		}
	})
}

// shownFields leaves of each entry what conntrack shows, sorted.
func shownFields(list []record.Fact) []fields {
	var out []fields
	for _, f := range list {
		c := fields{}
		for name, v := range f.Fields {
			switch name {
			case "status": // of its bits conntrack shows two
				c["assured"], c["unreplied"] = hasWord(v, "ASSURED"), hasWord(v, "SEEN_REPLY")
				if c["unreplied"] == "1" {
					c["unreplied"] = ""
				} else {
					c["unreplied"] = "1"
				}
			case "start": // conntrack shows how long ago that is, in whole seconds of another clock
			default:
				c[name] = v
			}
		}
		out = append(out, c)
	}
	return ctSorted(out)
}

func hasWord(list, name string) string {
	if slices.Contains(strings.Split(list, ","), name) {
		return "1"
	}
	return ""
}

func ctSorted(list []fields) []fields {
	slices.SortFunc(list, func(a, b fields) int { return strings.Compare(a["id"], b["id"]) })
	return list
}

// conntrackList reads the lines of conntrack -L -o extended,id.
func conntrackList(t *testing.T, list string) []fields {
	t.Helper()
	var out []fields
	for line := range strings.Lines(list) {
		words := strings.Fields(line)
		f := fields{"proto": nameOr(protoNames, uint64(atoi(t, words[3]))), "timeout": words[4], "assured": "", "unreplied": ""}
		seen := map[string]bool{}
		for _, w := range words[5:] {
			name, v, ok := strings.Cut(w, "=")
			if !ok {
				switch w {
				case "[UNREPLIED]":
					f["unreplied"] = "1"
				case "[ASSURED]":
					f["assured"] = "1"
				default:
					f["state"] = w
				}
				continue
			}
			switch name {
			case "delta-time":
				continue
			case "type", "code":
				name = "icmp_" + name
			case "id":
				if f["icmp_type"] != "" && !seen["reply_icmp_id"] { // the last one is that of the entry
					name = "icmp_id"
				}
			}
			if seen[name] {
				name = "reply_" + name
			}
			seen[name] = true
			f[name] = v
		}
		out = append(out, f)
	}
	return ctSorted(out)
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}
