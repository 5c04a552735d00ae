package netlinkpcap

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// tshark reads a file with Wireshark's dissectors: a line for each record that
// the filter takes, fields separated by tabs.
func tshark(t *testing.T, file []byte, filter string, fields ...string) []string {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Fatalf("%v (apt-get install tshark; make test does)", err)
	}
	path := filepath.Join(t.TempDir(), "drops.pcap")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-n", "-r", path, "-Y", filter, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	c := exec.Command("tshark", args...)
	var problems strings.Builder
	c.Stderr = &problems
	out, err := c.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, problems.String())
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// TestTsharkReadsTheSame: Wireshark's dissector finds in our file, by the family
// that its first record names, what our reader makes of it.
func TestTsharkReadsTheSame(t *testing.T) {
	file := recorded(t, recordings(t)["hw-netdevsim-bpo612-cloud"]) // which has software too
	o := observe(t, file)
	var want []string
	for _, d := range o.Samples {
		want = append(want, sampleText(d))
	}
	if len(want) < 12 {
		t.Fatalf("only %d samples", len(want))
	}
	got := tshark(t, file, "net_dm.cmd == 5",
		"net_dm.origin", "net_dm.pc", "net_dm.symbol", "net_dm.hw_trap_name", "net_dm.hw_trap_group_name",
		"net_dm.port.netdev_index", "net_dm.port.netdev_name", "net_dm.orig_len", "net_dm.proto",
		"frame.time_epoch", "eth.src", "ip.src", "ip.dst", "udp.srcport", "udp.dstport", "ip.ttl")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-ours +tshark's):\n%s", d)
	}
}

// sampleText is a sample as tshark prints the same fields.
func sampleText(d record.Drop) string {
	origin, pc, symbol := "0", d.Location.Address.String(), ""
	if d.Hardware() {
		origin, pc = "1", ""
	} else {
		symbol = d.Location.String() + "/0xde0" // the size of __udp4_lib_rcv there
	}
	trap := ""
	if d.Hardware() {
		trap = d.Reason.Name
	}
	f := d.Packet.Flow
	return strings.Join([]string{
		origin, pc, symbol, trap, d.Reason.Group,
		fmt.Sprint(d.Device.Index), d.Device.Name, fmt.Sprint(d.Length), fmt.Sprintf("0x%04x", d.EtherType),
		fmt.Sprintf("%d.%09d", d.Time.Unix(), d.Time.Nanosecond()), d.Packet.SrcMAC,
		f.Src.Addr().String(), f.Dst.Addr().String(), fmt.Sprint(f.Src.Port()), fmt.Sprint(f.Dst.Port()), fmt.Sprint(d.Packet.TTL),
	}, "\t")
}

// TestTsharkReadsWhatWeAdd: statistics and the note of lost alerts are no
// nonsense to Wireshark.
func TestTsharkReadsWhatWeAdd(t *testing.T) {
	stats := must(Stats(testFamily, dropmon.Stats{
		Software: dropmon.Tail{Dropped: 1 << 33, Known: true}, Hardware: dropmon.Tail{Dropped: 7, Known: true},
	}))
	file := capture(t, at{0, families(t, testFamily)}, at{0, stats}, at{0, Overrun(3)})
	got := tshark(t, file, "frame", "frame.number", "netlink.hdr_type", "net_dm.stats.dropped", "_ws.malformed")
	// A generic message's type is its family: tshark has another field for it.
	want := []string{"1\t\t\t", "2\t\t8589934592,7\t", "3\t0x0004\t\t"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
