package cli

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/netlinkpcap"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// said is an alert's address, and the kernel's words for it.
type said struct {
	pc    uint64
	words string
}

// alert is a packet alert as the kernel forms it (net_dm_packet_report_fill of
// net/core/drop_monitor.c).
func (s said) alert(t *testing.T, at time.Time) []byte {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	ae.Uint16(14, 0)
	ae.Uint64(2, s.pc)
	ae.String(23, "NO_SOCKET")
	ae.String(3, s.words)
	ae.Nested(4, func(in *netlink.AttributeEncoder) error { in.Uint32(0, 7); return nil })
	ae.Uint64(5, uint64(at.UnixNano()))
	ae.Uint32(10, 60)
	ae.Uint16(6, 0x0800)
	ae.Bytes(7, make([]byte, 60))
	attrs, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(b, uint32(len(b)+4+len(attrs)))
	binary.NativeEndian.PutUint16(b[4:], 34)
	return append(append(b, dropmon.CommandPacketAlert, 2, 0, 0), attrs...)
}

// captured writes a capture of alerts, and then of lost ones.
func captured(t *testing.T, lost uint32, alerts ...said) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drops.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := netlinkpcap.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, s := range alerts {
		at = at.Add(time.Millisecond)
		if err := w.Write(at, s.alert(t, at)); err != nil {
			t.Fatal(err)
		}
	}
	if lost > 0 {
		if err := w.Write(at, netlinkpcap.Overrun(lost)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// The alerts of a capture say where its kernel lay: of the sample, moved by
// 0x200000. What they do not name, or not wholly, the file of symbols names.
func TestSymbolsOfCapture(t *testing.T) {
	placed := []said{{0xffffffff8120004a, "receive+0x2a/0x50"}, {0xffffffff8120007b, "deliver+0xb/0x24"}}
	path := captured(t, 0, append(placed,
		said{0xffffffff81200030, "receive+0x00000000000000000000000000000"},
		said{0xffffffff81200096, "0xffffffff81200096"})...)
	for symbols, want := range map[string][]string{
		sampleMap: {"receive+0x2a", "deliver+0xb", "receive+0x10", "refuse+0x2"},
		sampleELF: {"receive+0x2a (net/ipv4/input.c:12)"},
	} {
		r := here(t, "watch", "-r", path, "--symbols", symbols)
		for _, place := range want {
			if !strings.Contains(r.out, "1 drop at "+place+" ") && !strings.Contains(r.out, "1 drops at "+place+" ") {
				t.Errorf("%s: no %s", symbols, place)
			}
		}
		if r.code != exitOK || !strings.Contains(strings.Join(strings.Fields(r.err), " "), "0x200000 above the file's addresses (the drop monitor's alert of receive)") {
			t.Errorf("%s: exit status %d\n%s%s", symbols, r.code, r.out, r.err)
		}
	}
	for what, c := range map[string]struct {
		alerts []said
		says   string
	}{
		"one function":   {placed[:1], "has fewer than two"},
		"no function":    {[]said{{0xffffffff81200096, "0xffffffff81200096"}}, "has fewer than two"},
		"another kernel": {[]said{placed[0], {0xffffffff8120107b, "deliver+0xb/0x24"}}, "is not of this kernel"},
	} {
		r := here(t, "report", "-r", captured(t, 0, c.alerts...), "--symbols", sampleMap)
		if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, c.says) {
			t.Errorf("%s: exit status %d, want %q\n%s%s", what, r.code, c.says, r.out, r.err)
		}
	}
}

// What the books of a capture say at its end is said although it ends early.
func TestReportOfCaptureThatEndsEarly(t *testing.T) {
	path := captured(t, 3, said{0xffffffff8120004a, "receive+0x2a/0x50"})
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("early"); err != nil {
		t.Fatal(err)
	}
	r := here(t, "report", "-j", "-r", path)
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil || r.code != exitPartial || !strings.Contains(r.err, "ends early") {
		t.Fatalf("exit status %d, %v\n%s%s", r.code, err, r.out, r.err)
	}
	if s := d.Sources[0]; s.State != record.SourceDegraded || !strings.Contains(s.Why, "3 alerts are not in the file") || d.Accounting.DropsLost != 3 {
		t.Errorf("%+v, %+v", s, d.Accounting)
	}
}
