package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func testFlow() Flow {
	return Flow{Proto: 17, Src: netip.MustParseAddrPort("[2001:db8::1]:4242"), Dst: netip.MustParseAddrPort("[2001:db8::2]:53")}
}

func testKey(reason string) Key {
	return Key{
		Reason:   Reason{Name: reason, Subsystem: "core", Value: 6},
		Location: Location{Symbol: "f", Module: "m", Offset: 0x37, Address: 0xffffffffc0000037},
		NetNS:    NetNS{Inode: 4026531833, Name: "host"}, Device: Device{Index: 2, Name: "eth0"},
		EtherType: 0x86dd, IPProto: 17, Direction: DirectionRX,
	}
}

func testInterval(i int) Interval {
	kind := uint8(8)
	return Interval{
		Window: Window{Start: start.Add(time.Duration(i) * time.Second), End: start.Add(time.Duration(i+1) * time.Second), Duration: time.Second},
		Counts: []Count{{Key: testKey("A"), Drops: 1<<63 + uint64(i), Bytes: 10}, {Key: testKey("B"), Drops: 2, Bytes: 20}},
		Samples: []Drop{{
			Time: start, KernelTime: 7, Key: testKey("A"), CPU: 1, Queue: 2, Length: 100, Mark: 3,
			Packet:      &Packet{SrcMAC: "02:00:00:00:00:01", EtherType: 0x86dd, VLANs: []uint16{5}, Flow: testFlow(), ICMPType: &kind, Inner: &Packet{Flow: testFlow()}},
			Headers:     []byte{1, 2, 3},
			Socket:      &Socket{Inode: 77, From: "rx_sk", Protocol: 17},
			CurrentTask: Task{PID: 1, TID: 2, Comm: "x\x1b[31m"},
			Stack:       []Location{{Symbol: "f", Offset: 1}},
		}},
		Accounting: Accounting{DropsSeen: 5, DropsAggregated: 4, DropsUnattributed: 1, Samples: 1},
	}
}

func testHeader() Header {
	return Header{
		Host: Host{Hostname: "h", CPUs: 2}, Kernel: Kernel{Release: "6.18.44", KfreeSkbArgs: 4}, Start: start,
		Sources: []Source{{Name: "skbdrop", State: SourceOK}}, Blind: []Blind{{What: "rings", Why: "no event"}},
	}
}

func testFile(t testing.TB, close bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, testHeader())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := w.Interval(testInterval(i)); err != nil {
			t.Fatal(err)
		}
	}
	if close {
		if err := w.Close(Trailer{End: start.Add(2 * time.Second), Sources: []Source{{Name: "skbdrop", State: SourceDegraded, Why: "w"}}, Blind: []Blind{}}); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

var equalAddr = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestFileGivesBackWhatWasWritten(t *testing.T) {
	r, err := NewReader(bytes.NewReader(testFile(t, true)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(testHeader(), r.Header()); d != "" {
		t.Errorf("header (-written +read):\n%s", d)
	}
	for i := range 2 {
		iv, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(testInterval(i), iv, equalAddr, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("interval %d (-written +read):\n%s", i, d)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last interval: %v, want io.EOF", err)
	}
	if tr, ok := r.Trailer(); !ok || tr.Sources[0].Why != "w" {
		t.Errorf("trailer = %+v, %v", tr, ok)
	}
}

// TestEveryCutIsSaid cuts a file at every byte: what is read is a prefix of
// what was written, and the reader says that the rest is missing.
func TestEveryCutIsSaid(t *testing.T) {
	whole := testFile(t, true)
	for n := range whole {
		r, err := NewReader(bytes.NewReader(whole[:n]))
		if err != nil {
			if !errors.Is(err, ErrNotRecord) {
				t.Fatalf("cut at %d: %v", n, err)
			}
			continue
		}
		read := 0
		for {
			if _, err = r.Next(); err != nil {
				break
			}
			read++
		}
		// Without its last line feed the file is whole.
		if n == len(whole)-1 {
			if err != io.EOF {
				t.Fatalf("cut at %d of %d: %v, want io.EOF", n, len(whole), err)
			}
			continue
		}
		if !errors.Is(err, ErrTruncated) || read > 2 {
			t.Fatalf("cut at %d of %d: %d intervals, then %v; want ErrTruncated", n, len(whole), read, err)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	whole := string(testFile(t, true))
	lines := strings.SplitAfter(whole, "\n")
	for name, s := range map[string]string{
		"empty":           "",
		"text":            "hello\n",
		"other JSON":      `{"type":"interval"}` + "\n",
		"no header":       `{"type":"whydrop-record","version":0,"schema_version":1}` + "\n",
		"later version":   strings.Replace(whole, `"schema_version":1`, `"schema_version":99`, 1),
		"damaged line":    lines[0] + "{damaged\n" + lines[1],
		"unknown content": lines[0] + `{"type":"song"}` + "\n" + lines[1],
	} {
		r, err := NewReader(strings.NewReader(s))
		for err == nil {
			_, err = r.Next()
		}
		if err == io.EOF || errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %v, want an error that says what is wrong", name, err)
		}
		if strings.Contains(name, "version") && !strings.Contains(err.Error(), "99") {
			t.Errorf("%s: error does not name the version: %v", name, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(testFile(f, true))
	f.Add(testFile(f, false))
	f.Add([]byte(`{"type":"whydrop-record","schema_version":1,"header":{}}` + "\n" + `{"type":"interval","interval":{"samples":[{"packet":{"flow":{"proto":"udp","src":"x"}}}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		c := NewCollector(r.Header())
		for range 1000 {
			iv, err := r.Next()
			if err != nil {
				break
			}
			c.Add(iv)
		}
		tr, _ := r.Trailer()
		c.Finish(tr)
	})
}

func TestCollectorAddsUp(t *testing.T) {
	c := NewCollector(testHeader())
	c.MaxSamples = 1
	c.Add(testInterval(0))
	c.Add(testInterval(1))
	o := c.Finish(Trailer{End: start.Add(3 * time.Second)})
	if len(o.Counts) != 2 || o.Counts[1].Drops != 4 || o.Counts[1].Bytes != 40 {
		t.Errorf("counts = %+v", o.Counts)
	}
	if o.Accounting.DropsSeen != 10 || o.Accounting.Samples != 2 || len(o.Samples) != 1 {
		t.Errorf("accounting %+v, %d samples", o.Accounting, len(o.Samples))
	}
	if o.Window.Duration != 3*time.Second || o.SchemaVersion != SchemaVersion {
		t.Errorf("window %+v, schema %d", o.Window, o.SchemaVersion)
	}
}

func TestFlowJSON(t *testing.T) {
	b, err := json.Marshal(testFlow())
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"proto":"udp","src":"2001:db8::1","src_port":4242,"dst":"2001:db8::2","dst_port":53}`; string(b) != want {
		t.Errorf("flow = %s, want %s", b, want)
	}
	odd := testFlow()
	odd.Proto = 253
	for _, f := range []Flow{testFlow(), odd, {}} {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var back Flow
		if err := json.Unmarshal(b, &back); err != nil || back != f {
			t.Errorf("%s came back as %+v, %v", b, back, err)
		}
	}
	for _, s := range []string{`{"proto":"udp","src":"x","dst":"::1"}`, `{"proto":"nonsense","src":"::1","dst":"::1"}`, `5`} {
		var f Flow
		if err := json.Unmarshal([]byte(s), &f); err == nil {
			t.Errorf("%s was read as %+v", s, f)
		}
	}
}

func TestLocationString(t *testing.T) {
	for want, l := range map[string]Location{
		"0xffffffff81000010":          {Address: 0xffffffff81000010},
		"tcp_v4_rcv+0x4d":             {Symbol: "tcp_v4_rcv", Offset: 77, Address: 1},
		"nft_do_chain+0x40e [nf]":     {Symbol: "nft_do_chain", Module: "nf", Offset: 0x40e},
		"last+0x999 (beyond its end)": {Symbol: "last", Offset: 0x999, Beyond: true},
		"cut+?":                       {Symbol: "cut", Address: 1, OffsetCut: true},
		"[nf_tables]+0x40e":           {Module: "nf_tables", Offset: 0x40e, Address: 1},
		"ip_rcv+0x8 (net/ipv4/ip_input.c:570)": {
			Symbol: "ip_rcv", Offset: 8, File: "net/ipv4/ip_input.c", Line: 570,
		},
	} {
		if got := l.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAddressJSON(t *testing.T) {
	b, err := json.Marshal(Location{Address: 0xffffffff81000011})
	if err != nil || !strings.Contains(string(b), `"address":"0xffffffff81000011"`) {
		t.Errorf("location = %s, %v", b, err)
	}
	for _, s := range []string{`5`, `"5"`, `"0x"`, `"0xzz"`, `"0x10000000000000000"`} {
		var a Address
		if err := json.Unmarshal([]byte(s), &a); err == nil {
			t.Errorf("%s was read as %s", s, a)
		}
	}
}

func TestClassOrder(t *testing.T) {
	order := []Class{ClassFault, ClassCapacity, ClassPolicy, ClassExpected}
	for i, c := range order[:3] {
		if !c.Shown() || c.Severity() <= order[i+1].Severity() {
			t.Errorf("%s must be shown and weigh more than %s", c, order[i+1])
		}
	}
	if ClassExpected.Shown() || ClassBenign.Shown() || Class("").Shown() {
		t.Error("expected and benign are hidden by default")
	}
}
