package dropmon

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// recorded is a message of testdata/recorded.txt.
type recorded struct {
	kernel  string // from the line above, as in "6.1.0-50-cloud-amd64"
	message []byte
	says    string
}

func readRecorded(t testing.TB) (all []recorded) {
	t.Helper()
	text, err := os.ReadFile("testdata/recorded.txt")
	if err != nil {
		t.Fatal(err)
	}
	var r recorded
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if said, ok := strings.CutPrefix(line, "\t"); ok {
			r.says = said
			all = append(all, r)
			continue
		}
		if _, kernel, ok := strings.Cut(line, ", Linux "); ok {
			r.kernel = kernel
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if r.message, err = hex.DecodeString(line); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	if len(all) < 100 {
		t.Fatalf("%d recorded messages", len(all))
	}
	return all
}

// say decodes a message, of whatever command, into the words of recorded.txt.
func say(b []byte) (string, int, error) {
	switch b[0] {
	case CommandConfigNew:
		c, err := decodeConfig(b)
		return fmt.Sprintf("config: mode %d truncate %d queue %d", c.Mode, c.Truncate, c.Queue), 0, err
	case CommandStatsNew:
		s, err := decodeStats(b)
		if !s.Software.Known || !s.Hardware.Known {
			return "stats: not both known", 1, err
		}
		return fmt.Sprintf("stats: software %d hardware %d", s.Software.Dropped, s.Hardware.Dropped), 0, err
	}
	a, err := Decode(b)
	if err != nil {
		return "", a.Skipped, err
	}
	if p := a.Packet; p != nil {
		return fmt.Sprintf("packet: origin %d pc 0x%x symbol %s reason %s in %d %s time %d protocol 0x%x length %d payload %d trap %s group %s",
			p.Origin, p.PC, dash(p.Symbol), dash(p.Reason), p.InIndex, dash(p.InName), p.Time.UnixNano(), p.Protocol,
			p.OriginalLength, len(p.Payload), dash(p.TrapName), dash(p.TrapGroup)), a.Skipped, nil
	}
	var parts []string
	for _, p := range a.Points {
		parts = append(parts, fmt.Sprintf("%d at 0x%x", p.Drops, p.PC))
	}
	for _, tr := range a.Traps {
		parts = append(parts, fmt.Sprintf("%d at %s", tr.Drops, tr.Name))
	}
	return "summary: " + strings.Join(parts, ", "), a.Skipped, nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func TestRecorded(t *testing.T) {
	for _, r := range readRecorded(t) {
		got, skipped, err := say(r.message)
		if err != nil || skipped != 0 || got != r.says {
			t.Errorf("%s %x\n got %q, %d skipped, %v\nwant %q", r.kernel, r.message, got, skipped, err, r.says)
		}
		if a, _ := Decode(r.message); a.Packet != nil {
			p := a.Packet.Payload
			if len(p) == 0 || !bytes.HasSuffix(bytes.TrimRight(r.message, "\x00"), bytes.TrimRight(p, "\x00")) {
				t.Errorf("%s %x: payload %x", r.kernel, r.message, p)
			}
		}
	}
}

// TestRecordedByDropwatch holds what is decoded against what dropwatch printed
// of the same drops.
func TestRecordedByDropwatch(t *testing.T) {
	printed := map[string][]string{} // by kernel
	text, err := os.ReadFile("testdata/dropwatch.txt")
	if err != nil {
		t.Fatal(err)
	}
	kernel := ""
	for block := range strings.SplitSeq(string(text), "\n\n") {
		if _, k, ok := strings.Cut(block, ", Linux "); ok {
			kernel, block, _ = strings.Cut(k, "\n")
		}
		printed[kernel] = append(printed[kernel], strings.TrimSpace(block))
	}
	seen := map[string]bool{}
	for _, r := range readRecorded(t) {
		a, err := Decode(r.message)
		if err != nil {
			continue // an answer, not an alert
		}
		for _, want := range printed[r.kernel] {
			if matches(t, a, want) {
				seen[r.kernel+want] = true
			}
		}
	}
	for kernel, blocks := range printed {
		for _, b := range blocks {
			if kernel != "" && b != "" && !seen[kernel+b] {
				t.Errorf("Linux %s: no recorded message says\n%s", kernel, b)
			}
		}
	}
}

// matches compares an alert with a block of dropwatch: a packet, or locations of
// a summary.
func matches(t *testing.T, a Alert, block string) bool {
	first, rest, _ := strings.Cut(block, "\n")
	if strings.HasPrefix(first, "drops at ") {
		// Software: the pointer behind the symbol; a packet's block may follow.
		for _, p := range a.Points {
			if strings.Contains(first, fmt.Sprintf("(0x%x) [software]", p.PC)) {
				return true
			}
		}
		return a.Packet != nil && matches(t, a, rest)
	}
	if strings.HasSuffix(first, "[hardware]") {
		var lines []string
		for _, tr := range a.Traps {
			lines = append(lines, fmt.Sprintf("%d drops at %s [hardware]", tr.Drops, tr.Name))
		}
		return strings.Join(lines, "\n") == block
	}
	return a.Packet != nil && dropwatchLines(a.Packet) == block
}

// dropwatchLines prints a packet as dropwatch does, without the time, and
// without lengths for software.
func dropwatchLines(p *Packet) string {
	var b strings.Builder
	if p.Origin == OriginHardware {
		fmt.Fprintf(&b, "drop at: %s (%s)\n", p.TrapName, p.TrapGroup)
	} else {
		fmt.Fprintf(&b, "drop at: %s (0x%x)\n", p.Symbol, p.PC)
	}
	fmt.Fprintf(&b, "origin: %s\ninput port ifindex: %d\n", p.Origin, p.InIndex)
	if p.InName != "" {
		fmt.Fprintf(&b, "input port name: %s\n", p.InName)
	}
	fmt.Fprintf(&b, "protocol: 0x%x\n", p.Protocol)
	if p.Origin == OriginHardware {
		fmt.Fprintf(&b, "length: %d\noriginal length: %d\n", len(p.Payload), p.OriginalLength)
	}
	if p.Reason != "" {
		fmt.Fprintf(&b, "drop reason: %s\n", p.Reason)
	}
	return strings.TrimSpace(b.String())
}

// TestTruncated: a message that is cut anywhere is an error, or what it lacks is
// counted.
func TestTruncated(t *testing.T) {
	for _, r := range readRecorded(t) {
		whole := len(r.message)
		if a, _ := Decode(r.message); a.Packet != nil {
			// Nothing is lost with the padding behind the last attribute.
			whole -= aligned(len(a.Packet.Payload)) - len(a.Packet.Payload)
		}
		for n := 1; n < whole; n++ {
			// A message of its own size, so that reading beyond it panics.
			got, skipped, err := say(slices.Clip(bytes.Clone(r.message[:n])))
			if err == nil && skipped == 0 {
				t.Errorf("%s %s: the first %d of %d bytes pass for %q", r.kernel, r.says, n, len(r.message), got)
			}
		}
	}
	if _, err := Decode(nil); !errors.Is(err, errShort) {
		t.Errorf("no bytes: %v", err)
	}
}

// TestWrongEndian turns every length, type and number of the recorded messages.
func TestWrongEndian(t *testing.T) {
	for _, r := range readRecorded(t) {
		b := bytes.Clone(r.message)
		for i := headerSize; i+4 <= len(b); {
			length := int(binary.NativeEndian.Uint16(b[i:]))
			slices.Reverse(b[i : i+2])
			slices.Reverse(b[i+2 : i+4])
			if length < 4 || i+length > len(b) {
				break
			}
			i += aligned(length)
		}
		if got, skipped, err := say(b); err == nil && skipped == 0 {
			t.Errorf("%s: turned it passes for %q", r.says, got)
		}
	}
	swapped := appendAttribute([]byte{CommandPacketAlert, 2, 0, 0}, attrProtocol|unix.NLA_F_NET_BYTEORDER, 8, 0)
	if a, err := Decode(swapped); err != nil || a.Packet.Protocol != 0 || a.Skipped == 0 {
		t.Errorf("attribute in network byte order: %+v, %v", a, err)
	}
}

// text is an attribute's string.
func text(s string) []byte { return append([]byte(s), 0) }

func u64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }
func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func u16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }

// TestPacketEverything has each attribute that a packet can have, with a cookie,
// which no recording has.
func TestPacketEverything(t *testing.T) {
	b := []byte{CommandPacketAlert, 2, 0, 0}
	b = appendAttribute(b, attrOrigin, u16(1)...)
	b = appendAttribute(b, attrTrapGroup, text("acl_drops")...)
	b = appendAttribute(b, attrTrap, text("ingress_flow_action_drop")...)
	b = appendAttribute(b, attrInPort|unix.NLA_F_NESTED, appendAttribute(appendU32(nil, portIndex, 7), portName, text("swp3")...)...)
	b = appendAttribute(b, attrCookie, 0xde, 0xad, 0xbe)
	b = appendAttribute(b, attrPad)
	b = appendAttribute(b, attrTimestamp, u64(1795336547618470120)...)
	b = appendU32(b, attrLength, 1514)
	b = appendAttribute(b, attrProtocol, u16(0x86dd)...)
	b = appendAttribute(b, attrPayload, 1, 2, 3, 4, 5)
	b = appendAttribute(b, attrPC, u64(0xffffffff81000000)...)
	b = appendAttribute(b, attrSymbol, text("f+0x1/0x2")...)
	b = appendAttribute(b, attrReason, text("NO_SOCKET")...)
	want := Alert{Command: CommandPacketAlert, Packet: &Packet{
		Origin: OriginHardware, PC: 0xffffffff81000000, Symbol: "f+0x1/0x2", Reason: "NO_SOCKET",
		InIndex: 7, InName: "swp3", Time: time.Unix(0, 1795336547618470120), Protocol: 0x86dd,
		OriginalLength: 1514, Payload: []byte{1, 2, 3, 4, 5},
		TrapName: "ingress_flow_action_drop", TrapGroup: "acl_drops", Cookie: []byte{0xde, 0xad, 0xbe},
	}}
	got, err := Decode(b)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}
	// What is decoded does not change with the buffer.
	clear(b)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after the buffer was used again:\n%s", diff)
	}
}

func TestSkipped(t *testing.T) {
	softly := func(add ...[]byte) []byte {
		b := []byte{CommandPacketAlert, 2, 0, 0}
		b = appendAttribute(b, attrOrigin, u16(0)...)
		b = appendAttribute(b, attrPC, u64(1)...)
		b = appendAttribute(b, attrSymbol, text("f")...)
		b = appendAttribute(b, attrInPort)
		b = appendAttribute(b, attrTimestamp, u64(1)...)
		b = appendU32(b, attrLength, 0)
		return append(b, bytes.Join(add, nil)...)
	}
	entry := func(b []byte) []byte { return appendAttribute(nil, attrHardEntry, b...) }
	hard := func(entries ...[]byte) []byte {
		b := appendU32([]byte{CommandAlert, 2, 0, 0}, attrEntries, 0)
		return appendAttribute(b, attrHardEntries, bytes.Join(entries, nil)...)
	}
	name := appendAttribute(nil, attrTrap, text("t")...)
	whole := appendU32(bytes.Clone(name), attrTrapCount, 3)
	for _, test := range []struct {
		name string
		b    []byte
		want int
	}{
		{"nothing", softly(), 0},
		{"unknown", softly(appendAttribute(nil, 24, 1), appendAttribute(nil, 0x3fff)), 2},
		{"of another command", softly(appendAttribute(nil, attrMode, 1)), 1},
		{"twice", softly(appendAttribute(nil, attrPC, u64(2)...)), 1},
		{"number too long", softly(appendAttribute(nil, attrProtocol, u32(1)...)), 1},
		{"number too short", softly(appendAttribute(nil, attrProtocol, 1)), 1},
		{"string without end", softly(appendAttribute(nil, attrReason, 'X')), 1},
		{"string with two ends", softly(appendAttribute(nil, attrReason, 'X', 0, 'Y', 0)), 1},
		{"empty string", softly(appendAttribute(nil, attrReason)), 1},
		{"no entries at all", appendU32([]byte{CommandAlert, 2, 0, 0}, attrEntries, 0), 1},
		{"bytes behind the entries", appendAttribute([]byte{CommandAlert, 2, 0, 0}, attrEntries, append(u32(1), make([]byte, pointSize+4)...)...), 1},
		{"unknown beside entries", appendU32(hard(entry(whole)), 25, 1), 1},
		{"hardware", hard(entry(whole), entry(whole)), 0},
		{"hardware, without a count", hard(entry(name), entry(whole)), 1},
		{"hardware, more in the entry", hard(entry(appendU32(bytes.Clone(whole), 30, 1))), 1},
		{"hardware, twice", hard(entry(append(bytes.Clone(whole), name...))), 1},
		{"hardware, no entry", hard(appendU32(nil, 30, 1)), 1},
	} {
		a, err := Decode(test.b)
		if err != nil || a.Skipped != test.want {
			t.Errorf("%s: %d skipped, %v; want %d", test.name, a.Skipped, err, test.want)
		}
	}
	a, err := Decode(softly(appendAttribute(nil, attrPC, u64(2)...), appendAttribute(nil, attrTimestamp, u64(1<<63)...)))
	if err != nil || a.Packet.PC != 1 || a.Skipped != 2 {
		t.Errorf("of two the first stays: %+v, %v", a.Packet, err)
	}
}

func TestErrors(t *testing.T) {
	summary := func(content []byte) []byte {
		return appendAttribute([]byte{CommandAlert, 2, 0, 0}, attrEntries, content...)
	}
	for _, test := range []struct {
		name string
		b    []byte
		want error
	}{
		{"header", []byte{CommandAlert, 2, 0}, errShort},
		{"command", []byte{CommandConfigNew, 2, 0, 0}, errCommand},
		{"later command", []byte{10, 2, 0, 0}, errCommand},
		{"no attributes", []byte{CommandAlert, 2, 0, 0}, errMissing},
		{"no attributes of packet", []byte{CommandPacketAlert, 2, 0, 0}, errMissing},
		{"entries too short", summary([]byte{1, 0}), errShort},
		{"more entries than bytes", summary(append(u32(2), make([]byte, pointSize)...)), errShort},
		{"entries without end", summary(append(u32(0xffffffff), make([]byte, pointSize)...)), errShort},
		{"length of nothing", append([]byte{CommandPacketAlert, 2, 0, 0}, 0, 0, 0, 0), errAttribute},
		{"length of too much", append([]byte{CommandPacketAlert, 2, 0, 0}, 0xff, 0xff, 2, 0), errAttribute},
		{"half a header", append([]byte{CommandPacketAlert, 2, 0, 0}, 8, 0), errAttribute},
		{"nested", appendAttribute([]byte{CommandPacketAlert, 2, 0, 0}, attrInPort, 9, 0, 0, 0, 1), errAttribute},
		{"nested in hardware", appendAttribute(summary(u32(0)), attrHardEntries, 9, 0, attrHardEntry, 0, 1), errAttribute},
		{"nested twice", appendAttribute(summary(u32(0)), attrHardEntries, appendAttribute(nil, attrHardEntry, 9, 0, 16, 0)...), errAttribute},
	} {
		if a, err := Decode(test.b); !errors.Is(err, test.want) || a.Points != nil || a.Packet != nil {
			t.Errorf("%s: %+v, %v; want %v", test.name, a, err, test.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	tail := func(kind uint16, v uint64) []byte {
		return appendAttribute(nil, kind|unix.NLA_F_NESTED, appendAttribute(nil, statsDropped, u64(v)...)...)
	}
	stats := func(parts ...[]byte) []byte {
		return append([]byte{CommandStatsNew, 2, 0, 0}, bytes.Join(parts, nil)...)
	}
	got, err := decodeStats(stats(tail(attrStats, 1<<40), appendU32(nil, 99, 1)))
	if want := (Stats{Software: Tail{Dropped: 1 << 40, Known: true}}); err != nil || got != want {
		t.Errorf("software alone: %+v, %v", got, err)
	}
	config := Config{Mode: ModePacket, Truncate: 96, Queue: 2000}
	answer := append([]byte{CommandConfigNew, 2, 0, 0}, config.encode()...)
	if got, err := decodeConfig(answer); err != nil || got != config {
		t.Errorf("configuration there and back: %+v, %v", got, err)
	}
	for name, err := range map[string]error{
		"stats of nothing":          second(decodeStats(stats())),
		"stats of four bytes":       second(decodeStats(stats(appendAttribute(nil, attrStats, appendU32(nil, statsDropped, 1)...)))),
		"stats of another command":  second(decodeStats(answer)),
		"config of another command": second(decodeConfig(stats(tail(attrStats, 1)))),
		"config without a queue":    second(decodeConfig(answer[:len(answer)-8])),
		"config with a wide mode":   second(decodeConfig(appendU32([]byte{CommandConfigNew, 2, 0, 0}, attrMode, 1))),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestEncode compares with what include/uapi/linux/net_dropmon.h asks for,
// written by hand: the length, the type, the value.
func TestEncode(t *testing.T) {
	for _, test := range []struct {
		name string
		got  []byte
		want string
	}{
		{"config", Config{Mode: ModePacket, Truncate: 64, Queue: 1000}.encode(), "0500010001000000 0800090040000000 08000b00e8030000"},
		{"software", encodeOrigins(true, false), "04001400"},
		{"hardware", encodeOrigins(false, true), "04001500"},
		{"both", encodeOrigins(true, true), "04001400 04001500"},
		{"cut", appendAttribute(nil, 1, make([]byte, 1<<16)...)[:4], "ffff0100"},
	} {
		if got := hex.EncodeToString(test.got); got != strings.ReplaceAll(test.want, " ", "") {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestSplitMessages(t *testing.T) {
	one := []byte{20, 0, 0, 0, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0}
	odd := append([]byte{18}, one[1:]...) // two bytes of padding
	var got []string
	collect := func(kind uint16, m []byte) error {
		got = append(got, fmt.Sprintf("%d:%d", kind, len(m)))
		return nil
	}
	if err := splitMessages(slices.Concat(one, odd, one), collect); err != nil || strings.Join(got, " ") != "33:20 33:18 33:20" {
		t.Errorf("%v, %v", got, err)
	}
	for n := 1; n < len(one); n++ {
		if err := splitMessages(one[:n], collect); !errors.Is(err, errShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	stop := errors.New("stop")
	if err := splitMessages(one, func(uint16, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of the function: %v", err)
	}
}

// TestDecodeAllocates: a summary of any size takes one allocation for its points.
func TestDecodeAllocates(t *testing.T) {
	const points = 64 // dm_hit_limit
	b := appendAttribute([]byte{CommandAlert, 2, 0, 0}, attrEntries, append(u32(points), make([]byte, points*pointSize)...)...)
	n := testing.AllocsPerRun(100, func() {
		if a, err := Decode(b); err != nil || len(a.Points) != points {
			t.Fatalf("%d points, %v", len(a.Points), err)
		}
	})
	if n > 2 {
		t.Errorf("%v allocations for %d points", n, points)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		ModeSummary.String(): "summary", ModePacket.String(): "packet", Mode(9).String(): "mode 9",
		OriginSoftware.String(): "software", OriginHardware.String(): "hardware", Origin(9).String(): "origin 9",
		Config{Mode: ModePacket, Truncate: 64, Queue: 1000}.String(): "mode packet, packets cut to 64 bytes, queue of 1000 packets",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range readRecorded(f) {
		f.Add(r.message)
	}
	f.Add([]byte{CommandPacketAlert, 2, 0, 0, 4, 0, 4, 0x80, 4, 0, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Decode(b)
		if err == nil && a.Packet == nil && a.Command == CommandPacketAlert {
			t.Error("a packet alert without a packet")
		}
		if n := len(a.Points)*pointSize + len(a.Traps); n > len(b) {
			t.Errorf("%d points and %d traps from %d bytes", len(a.Points), len(a.Traps), len(b))
		}
		if p := a.Packet; p != nil && len(p.Payload)+len(p.Cookie)+len(p.Symbol)+len(p.Reason)+len(p.InName)+len(p.TrapName)+len(p.TrapGroup) > len(b) {
			t.Errorf("%+v from %d bytes", p, len(b))
		}
		_, _ = decodeConfig(b)
		_, _ = decodeStats(b)
		_ = splitMessages(b, func(_ uint16, m []byte) error {
			if len(m) < unix.SizeofNlMsghdr {
				t.Errorf("message of %d bytes", len(m))
			}
			return nil
		})
	})
}
