//go:build root

package counter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// nfMessage is what follows the header of a message to nfnetlink.
type nfMessage []byte

func (m nfMessage) Len() int          { return len(m) }
func (m nfMessage) Serialize() []byte { return m }

// bindQueue binds a queue of NFQUEUE that holds limit packets and is never
// read, until the test ends.
func bindQueue(t *testing.T, number uint16, limit uint32) {
	t.Helper()
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: 30}); err != nil {
		t.Fatal(err)
	}
	// include/uapi/linux/netfilter/nfnetlink_queue.h
	const msgConfig, cfgCmd, cfgParams, cfgMaxLen, bind, copyPacket = 2, 1, 2, 3, 1, 2
	for _, attrs := range [][]byte{
		attr(cfgCmd, []byte{bind, 0, 0, unix.AF_INET}),
		join(attr(cfgParams, []byte{0, 0, 0x10, 0, copyPacket}), attr(cfgMaxLen, binary.BigEndian.AppendUint32(nil, limit))),
	} {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_QUEUE<<8|msgConfig, unix.NLM_F_ACK)
		req.AddData(nfMessage(join([]byte{unix.AF_UNSPEC, 0, byte(number >> 8), byte(number)}, attrs)))
		if err := s.Send(req); err != nil {
			t.Fatal(err)
		}
		messages, _, err := s.Receive()
		if err != nil || len(messages) != 1 || messages[0].Header.Type != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(messages[0].Data) != 0 {
			t.Fatalf("configure queue: %v %+v", err, messages)
		}
	}
}

func TestNfqueueCounters(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		const limit, sent = 3, 10
		bindQueue(t, 77, limit)
		bindQueue(t, 78, limit)
		firewallTool(t, "", "iptables-legacy", "-A", "INPUT", "-p", "udp", "--dport", "9", "-j", "NFQUEUE", "--queue-num", "77")
		firewallTool(t, "", "iptables-legacy", "-A", "INPUT", "-p", "udp", "--dport", "10", "-j", "NFQUEUE", "--queue-num", "78")
		for range sent {
			datagrams(t, "127.0.0.1", 9)
		}
		for range 5 {
			datagrams(t, "127.0.0.1", 10)
		}
		want := map[string]uint64{
			"nfqueue.queue_dropped": sent + 5 - 2*limit, "nfqueue.user_dropped": 0, "nfqueue.id_sequence": 2 * limit,
			"nfqueue.queue_dropped queue 77": sent - limit, "nfqueue.user_dropped queue 77": 0, "nfqueue.id_sequence queue 77": limit, "nfqueue.queue_total queue 77": limit,
			"nfqueue.queue_dropped queue 78": 5 - limit, "nfqueue.user_dropped queue 78": 0, "nfqueue.id_sequence queue 78": limit, "nfqueue.queue_total queue 78": limit,
		}
		if d := gocmp.Diff(want, byKey(t, netfilter(t), "nfqueue")); d != "" {
			t.Error(d)
		}
	})
}

// state is what reading must leave as it is.
func state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"ip_tables_names", "ip6_tables_names", "arp_tables_names"} {
		text, err := os.ReadFile(filepath.Join(thread, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, text)
	}
	// The third word is how often a module is in use.
	text, _ := os.ReadFile("/proc/modules") // a kernel without modules has none
	for line := range bytes.Lines(text) {
		b.Write(bytes.Fields(line)[0])
		b.WriteByte('\n')
	}
	settings, err := filepath.Glob("/proc/sys/net/netfilter/nf_conntrack_*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range settings {
		value, err := os.ReadFile(name)
		fmt.Fprintf(&b, "%s: %s %v\n", name, value, err)
	}
	return b.String()
}

// TestNetfilterReadChangesNothing reads where nothing is there, then where
// everything is.
func TestNetfilterReadChangesNothing(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		unchanged := func(what string) {
			t.Helper()
			before := state(t)
			var s Snapshot
			s.readNft()
			s.readIptables()
			s.readConntrackCPUs()
			s.readNetfilterFiles()
			if d := gocmp.Diff(before, state(t)); d != "" {
				t.Errorf("%s: %s", what, d)
			}
			for _, m := range s.Missing {
				if !strings.Contains(m.Why, "modules.builtin") { // nobody may know what is built in
					t.Errorf("%s: %+v", what, m)
				}
			}
		}
		unchanged("nothing")
		firewallTool(t, ruleset, "nft", "-f", "-")
		firewallTool(t, "*filter\n-A INPUT -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n", "iptables-legacy-restore")
		datagrams(t, "127.0.0.1", 20, 21, 24)
		lists := func() string {
			return firewallTool(t, "", "nft", "-a", "list", "ruleset") + firewallTool(t, "", "iptables-legacy-save", "-c") +
				firewallTool(t, "", "conntrack", "-C")
		}
		before := lists()
		unchanged("rules")
		after := lists()
		// iptables-save writes the time.
		strip := func(s string) (lines []string) {
			for line := range strings.Lines(s) {
				if !strings.HasPrefix(line, "#") {
					lines = append(lines, line)
				}
			}
			return lines
		}
		if d := gocmp.Diff(strip(before), strip(after)); d != "" {
			t.Error(d)
		}
	})
}
