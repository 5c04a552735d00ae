package netlinkpcap

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestRecordOfRecordings compares what recordings become with golden files: each
// of them is one JSON object a line.
func TestRecordOfRecordings(t *testing.T) {
	all := recordings(t)
	for _, name := range []string{"full-bullseye-cloud", "full-trixie-cloud", "hw-netdevsim-bpo612-cloud"} {
		t.Run(name, func(t *testing.T) {
			h, intervals, tr, err := readAll(recorded(t, all[name]))
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			put := func(v any) {
				line, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				b.Write(append(line, '\n'))
			}
			put(h)
			for _, iv := range intervals {
				put(iv.Window)
				put(iv.Accounting)
				for _, c := range iv.Counts {
					put(c)
				}
				for i := range iv.Samples {
					iv.Samples[i].Headers = nil // they are in the recording
					put(iv.Samples[i])
				}
			}
			put(tr)
			testkit.Golden(t, "testdata/"+name+".golden", b.Bytes())
		})
	}
}

// TestHardware: each trap that netdevsim raised is a reason of its own, with its
// group where the kernel told it, at no place of the kernel.
func TestHardware(t *testing.T) {
	o := observe(t, recorded(t, recordings(t)["hw-netdevsim-bpo612-cloud"]))
	groups := map[string]map[string]bool{}
	for _, c := range o.Counts {
		if !c.Hardware() {
			continue
		}
		if c.Location != (record.Location{}) || c.Reason.Name == "" || c.Direction != record.DirectionRX {
			t.Errorf("%+v", c)
		}
		if groups[c.Reason.Name] == nil {
			groups[c.Reason.Name] = map[string]bool{}
		}
		groups[c.Reason.Name][c.Reason.Group] = true
	}
	want := map[string]map[string]bool{
		"source_mac_is_multicast":  {"l2_drops": true, "": true},
		"fid_miss":                 {"l2_drops": true, "": true},
		"ttl_value_is_too_small":   {"l3_exceptions": true, "": true},
		"ingress_flow_action_drop": {"acl_drops": true, "": true},
	}
	if d := cmp.Diff(want, groups); d != "" {
		t.Errorf("groups of traps (-want +got):\n%s", d)
	}
	i := slices.IndexFunc(o.Samples, func(d record.Drop) bool { return d.Hardware() })
	if i < 0 {
		t.Fatal("no sample of a hardware drop")
	}
	d := o.Samples[i]
	if d.Packet == nil || d.Packet.SrcMAC == "" || d.Packet.Flow.Src.Addr().String() != "192.0.2.1" {
		t.Errorf("packet of the hardware drop: %+v", d.Packet)
	}
	if d.Device != (record.Device{Index: 3, Name: "eth0"}) || d.Length != 142 || len(d.Headers) != 128 {
		t.Errorf("device %+v, %d bytes, %d of them there", d.Device, d.Length, len(d.Headers))
	}
}

// attrs encodes attributes with the library, not with our own codec.
func attrs(t testing.TB, f func(ae *netlink.AttributeEncoder)) []byte {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	f(ae)
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// drop is a packet alert of the kernel's form.
type drop struct {
	symbol, reason string
	pc             uint64
	time           time.Time
	proto          uint16
	payload        []byte
}

func (d drop) message(t testing.TB) []byte {
	t.Helper()
	b := attrs(t, func(ae *netlink.AttributeEncoder) {
		ae.Uint16(14, 0)
		ae.Uint64(2, d.pc)
		ae.String(23, d.reason)
		ae.String(3, d.symbol)
		ae.Nested(4, func(in *netlink.AttributeEncoder) error { in.Uint32(0, 7); return nil })
		if !d.time.IsZero() {
			ae.Uint64(5, uint64(d.time.UnixNano()))
		}
		ae.Uint32(10, uint32(len(d.payload)))
		ae.Uint16(6, d.proto)
		ae.Bytes(7, d.payload)
	})
	return wrap(testFamily, append([]byte{dropmon.CommandPacketAlert, 2, 0, 0}, b...))
}

// summary is a summary of one place.
func summary(pc uint64, drops uint32) []byte {
	b := []byte{dropmon.CommandAlert, 2, 0, 0}
	b = binary.NativeEndian.AppendUint16(b, 20)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = binary.NativeEndian.AppendUint64(b, pc)
	return wrap(testFamily, binary.NativeEndian.AppendUint32(b, drops))
}

// someDrop is a drop so long after the start of the file.
func someDrop(after time.Duration) drop {
	return drop{symbol: "f+0x1/0x2", reason: "NO_SOCKET", pc: 0xffffffff81000001, time: testStart.Add(after), proto: 0x800, payload: ipv4}
}

// ipv4 is a UDP datagram from 10.0.0.1:7 to 10.0.0.2:53, without a link header.
var ipv4 = []byte{
	0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
	0, 7, 0, 53, 0, 8, 0, 0,
}

// TestPayload: the first byte of a payload belongs to a link header, which only
// some devices have.
func TestPayload(t *testing.T) {
	ethernet := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, ipv4...)
	tagged := slices.Concat(ethernet[:12], []byte{0x81, 0, 0, 5}, ethernet[12:])
	for name, tt := range map[string]struct {
		payload []byte
		proto   uint16
		want    string
		vlans   []uint16
	}{
		"Ethernet":             {ethernet, 0x800, "10.0.0.1:7", nil},
		"Ethernet, no noted":   {ethernet, 0, "10.0.0.1:7", nil},
		"a tag in the frame":   {tagged, 0x8100, "10.0.0.1:7", []uint16{5}},
		"a tag, noted behind":  {tagged, 0x800, "10.0.0.1:7", []uint16{5}},
		"no link header":       {ipv4, 0x800, "10.0.0.1:7", nil},
		"cut in the header":    {ethernet[:20], 0x800, "", nil},
		"nothing":              {nil, 0x800, "", nil},
		"of no known protocol": {ipv4, 0x1234, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := someDrop(time.Second)
			d.payload, d.proto = tt.payload, tt.proto
			o := observe(t, capture(t, at{0, families(t, testFamily)}, at{0, d.message(t)}))
			if len(o.Samples) != 1 || len(o.Counts) != 1 {
				t.Fatalf("%d samples, %d counts", len(o.Samples), len(o.Counts))
			}
			p := o.Samples[0].Packet
			if tt.want == "" {
				if p != nil && p.Flow.IsValid() {
					t.Errorf("a flow from nowhere: %+v", p)
				}
				return
			}
			if p == nil || p.Flow.Src.String() != tt.want || !slices.Equal(p.VLANs, tt.vlans) || o.Counts[0].IPProto != unix.IPPROTO_UDP {
				t.Errorf("packet %+v, count %+v", p, o.Counts[0])
			}
		})
	}
}

// TestIntervals: alerts go into seconds by the time of their drop. What comes
// late, as that of another CPU may, goes into the second that is open.
func TestIntervals(t *testing.T) {
	file := capture(t,
		at{0, families(t, testFamily)},
		at{3 * time.Second, someDrop(100 * time.Millisecond).message(t)},
		at{3 * time.Second, someDrop(900 * time.Millisecond).message(t)},
		at{3 * time.Second, someDrop(1500 * time.Millisecond).message(t)},
		at{3 * time.Second, someDrop(950 * time.Millisecond).message(t)}, // late
		at{5 * time.Second, someDrop(5 * time.Second).message(t)},
		at{5 * time.Second, someDrop(-time.Hour).message(t)},
		at{6500 * time.Millisecond, must(Stats(testFamily, dropmon.Stats{Software: dropmon.Tail{Known: true}}))},
	)
	h, all, tr, err := readAll(file)
	if err != nil {
		t.Fatal(err)
	}
	type second struct {
		start, end time.Duration
		drops      uint64
	}
	var got []second
	for _, iv := range all {
		got = append(got, second{iv.Window.Start.Sub(testStart), iv.Window.End.Sub(testStart), iv.Accounting.DropsSeen})
		if iv.Window.Duration != iv.Window.End.Sub(iv.Window.Start) || uint64(len(iv.Samples)) != iv.Accounting.Samples {
			t.Errorf("%+v", iv.Window)
		}
	}
	want := []second{{0, time.Second, 2}, {time.Second, 5 * time.Second, 2}, {5 * time.Second, 6500 * time.Millisecond, 2}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(second{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !h.Start.Equal(testStart) || !tr.End.Equal(testStart.Add(6500*time.Millisecond)) {
		t.Errorf("from %s to %s", h.Start, tr.End)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestWhatWasLost: what the file says about itself is in the accounting, once.
func TestWhatWasLost(t *testing.T) {
	stats := func(software, hardware uint64) []byte {
		return must(Stats(testFamily, dropmon.Stats{Software: dropmon.Tail{Dropped: software, Known: true}, Hardware: dropmon.Tail{Dropped: hardware, Known: true}}))
	}
	file := capture(t,
		at{0, families(t, testFamily)},
		at{0, stats(100, 5)},
		at{0, someDrop(0).message(t)},
		at{0, Overrun(7)},
		at{0, someDrop(2 * time.Second).message(t)},
		at{0, wrap(unix.NLMSG_OVERRUN, nil)},
		at{0, stats(140, 6)},
	)
	o := observe(t, file)
	want := record.Accounting{DropsSeen: 2 + 7 + 1 + 41, DropsAggregated: 2, DropsLost: 7 + 1 + 41, Samples: 2}
	if d := cmp.Diff(want, o.Accounting); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	src := o.Sources[0]
	if src.State != record.SourceDegraded || !strings.Contains(src.Why, "41 dropped packets") || !strings.Contains(src.Why, "8 alerts") {
		t.Errorf("source: %+v", src)
	}

	// In summary mode nobody knows how many drops an alert told of.
	o = observe(t, capture(t, at{0, families(t, testFamily)}, at{0, summary(1, 9)}, at{0, Overrun(3)}))
	want = record.Accounting{DropsSeen: 9, DropsAggregated: 9, AlertsLost: 3}
	if d := cmp.Diff(want, o.Accounting); d != "" {
		t.Errorf("summary mode (-want +got):\n%s", d)
	}
}

// TestFamilies: the number of the family comes from the file; without one, only
// what is a whole packet alert gives it away, and the record says so.
func TestFamilies(t *testing.T) {
	other := wrap(40, someDrop(0).message(t)[unix.NLMSG_HDRLEN:])
	alert := someDrop(0).message(t)
	for name, tt := range map[string]struct {
		records []at
		drops   uint64
		state   record.SourceState
	}{
		"named":                {[]at{{0, families(t, testFamily)}, {0, alert}, {0, other}}, 1, record.SourceOK},
		"not named":            {[]at{{0, alert}, {0, alert}, {0, other}}, 2, record.SourceDegraded},
		"a summary, not named": {[]at{{0, summary(1, 2)}}, 0, record.SourceOff},
		"another family":       {[]at{{0, families(t, 99)}, {0, alert}}, 0, record.SourceOK},
		"named anew":           {[]at{{0, families(t, 99)}, {0, alert}, {0, families(t, testFamily)}, {0, alert}}, 1, record.SourceOK},
		"nothing of it":        {[]at{{0, wrap(50, []byte{1, 2, 3, 4, 5})}}, 0, record.SourceOff},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe(t, capture(t, tt.records...))
			if o.Accounting.DropsSeen != tt.drops || o.Sources[0].State != tt.state {
				t.Errorf("%d drops, source %+v; want %d, %s", o.Accounting.DropsSeen, o.Sources, tt.drops, tt.state)
			}
		})
	}
}

// TestFileOfDwdump reads what Debian's dwdump 1.5.4 wrote on Linux 6.12 (dwdump -t
// 128) of three datagrams to a closed port. It cut its first record too, so that
// the family is not named there.
func TestFileOfDwdump(t *testing.T) {
	file, err := os.ReadFile("testdata/dwdump-1.5.4.pcap")
	if err != nil {
		t.Fatal(err)
	}
	o := observe(t, file)
	want := record.Accounting{DropsSeen: 3, DropsAggregated: 3, Samples: 3}
	if d := cmp.Diff(want, o.Accounting); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if len(o.Counts) != 1 || o.Counts[0].Reason.Name != "NO_SOCKET" || o.Counts[0].Location.String() != "__udp4_lib_rcv+0x235" {
		t.Errorf("%+v", o.Counts)
	}
	for _, d := range o.Samples {
		if f := d.Packet.Flow; f.Src.String() != "127.0.0.1:4242" || f.Dst.String() != "127.0.0.1:9" || d.Length != 46 {
			t.Errorf("%d bytes of %+v", d.Length, f)
		}
		if d.Time.Before(o.Window.Start.Add(-time.Second)) || d.Time.After(o.Window.End) {
			t.Errorf("dropped at %s, the file is from %s to %s", d.Time, o.Window.Start, o.Window.End)
		}
	}
	if src := o.Sources[0]; src.State != record.SourceDegraded || !strings.Contains(src.Why, "family") {
		t.Errorf("source: %+v", src)
	}
}

// TestOtherNetlink: of a capture of nlmon, what is not generic netlink is left
// out, also where the numbers are the same.
func TestOtherNetlink(t *testing.T) {
	file := capture(t, at{0, families(t, testFamily)}, at{0, someDrop(0).message(t)}, at{0, someDrop(0).message(t)})
	last := len(file) - len(someDrop(0).message(t)) - 2
	file[last+1] = 0 // the protocol of the last record: NETLINK_ROUTE
	o := observe(t, file)
	if o.Accounting.DropsSeen != 1 || o.Accounting.DecodeErrors != 0 {
		t.Errorf("%+v", o.Accounting)
	}
}

// TestBroken: what cannot be read is counted, and does not hide what follows.
func TestBroken(t *testing.T) {
	good := someDrop(0).message(t)
	cut := bytes.Clone(good[:len(good)-30])
	binary.NativeEndian.PutUint32(cut, uint32(len(cut)))
	long := someDrop(0)
	long.reason = strings.Repeat("R", maxText+1)
	o := observe(t, capture(t,
		at{0, families(t, testFamily)},
		at{0, good[:len(good)-4]}, // less than its header says
		at{0, cut},                // inside of an attribute
		at{0, good[:unix.NLMSG_HDRLEN-1]},
		at{0, long.message(t)},
		at{0, wrap(testFamily, []byte{5})}, // no header of generic netlink: passed over
		at{0, good},
	))
	want := record.Accounting{DropsSeen: 1, DropsAggregated: 1, Samples: 1, DecodeErrors: 4}
	if d := cmp.Diff(want, o.Accounting); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestTimeAhead: a drop of the future does not take the window there.
func TestTimeAhead(t *testing.T) {
	ahead := someDrop(20 * 365 * 24 * time.Hour)
	o := observe(t, capture(t, at{0, families(t, testFamily)}, at{time.Second, someDrop(time.Second).message(t)}, at{2 * time.Second, ahead.message(t)}))
	if o.Window.Duration != 2*time.Second || o.Accounting.Samples != 2 || !o.Samples[1].Time.Equal(testStart.Add(2*time.Second)) {
		t.Errorf("%+v, %+v, %v", o.Window, o.Accounting, o.Samples[1].Time)
	}
	if s := o.Sources[0]; s.State != record.SourceDegraded || !strings.Contains(s.Why, "1 alerts tell a time long after they were written") {
		t.Errorf("%+v", s)
	}
}

// TestBounds: whatever a file holds, only so much of it is kept.
func TestBounds(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the package and this test have one goroutine, so the race detector has nothing to find")
	}
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(testStart, families(t, testFamily)); err != nil {
		t.Fatal(err)
	}
	const more = 10
	for i := range maxKeys + more {
		if err := w.Write(testStart, summary(uint64(i)+1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	for range maxSamples + more {
		if err := w.Write(testStart, someDrop(0).message(t)); err != nil {
			t.Fatal(err)
		}
	}
	_, all, tr, err := readAll(b.Bytes())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d intervals, %v", len(all), err)
	}
	if s := tr.Sources[0]; !strings.Contains(s.Why, "10 packets are counted and not shown one by one") {
		t.Errorf("%+v", s)
	}
	iv := all[0]
	want := record.Accounting{
		DropsSeen: 2*(maxKeys+more) + maxSamples + more, DropsAggregated: 2 * maxKeys, MapFull: 2*more + maxSamples + more,
		Samples: maxSamples,
	}
	if d := cmp.Diff(want, iv.Accounting); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if len(iv.Counts) != maxKeys || len(iv.Samples) != maxSamples {
		t.Errorf("%d counts, %d samples", len(iv.Counts), len(iv.Samples))
	}
}

// TestBlind: what is missing is said as far as the file tells.
func TestBlind(t *testing.T) {
	noReason := someDrop(0)
	noReason.reason = ""
	b := attrs(t, func(ae *netlink.AttributeEncoder) {
		ae.Uint16(14, 0)
		ae.Uint64(2, noReason.pc)
		ae.String(3, noReason.symbol)
	})
	old := wrap(testFamily, append([]byte{dropmon.CommandPacketAlert, 2, 0, 0}, b...))
	for name, tt := range map[string]struct {
		alert []byte
		want  []string
		not   []string
	}{
		"packets":         {someDrop(0).message(t), []string{"counters", "link header", "process"}, []string{"why packets", "64"}},
		"without reasons": {old, []string{"why packets", "link header"}, []string{"64"}},
		"summary":         {summary(1, 1), []string{"64", "reason, device"}, []string{"link header"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe(t, capture(t, at{0, families(t, testFamily)}, at{0, tt.alert}))
			text := fmt.Sprintf("%+v", o.Blind)
			for _, s := range tt.want {
				if !strings.Contains(text, s) {
					t.Errorf("%q is not said: %s", s, text)
				}
			}
			for _, s := range tt.not {
				if strings.Contains(text, s) {
					t.Errorf("%q is said: %s", s, text)
				}
			}
		})
	}
}

// dropmonStats are some statistics.
var dropmonStats = dropmon.Stats{Software: dropmon.Tail{Dropped: 1 << 40, Known: true}}

// TestStats: the message is the kernel's own, and read back.
func TestStats(t *testing.T) {
	for name, recording := range recordings(t) {
		for _, m := range recording {
			if m[0] != dropmon.CommandStatsNew {
				continue
			}
			s, ok := readStats(m[unix.GENL_HDRLEN:])
			if !ok {
				t.Fatalf("%s: %x is not read", name, m)
			}
			if got := must(Stats(testFamily, s)); !bytes.Equal(got, wrap(testFamily, m)) {
				t.Errorf("%s: formed %x, the kernel's is %x", name, got, wrap(testFamily, m))
			}
		}
	}
	got, ok := readStats(must(Stats(testFamily, dropmonStats))[headersLen:])
	if !ok || got != dropmonStats {
		t.Errorf("read %+v %v, written %+v", got, ok, dropmonStats)
	}
}
