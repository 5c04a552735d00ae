package shell

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// FuzzParse: whatever is typed is understood or refused, and blanks around it
// change nothing.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "start", "set", "set alertlimit 5", "set alertlimit5", "set alertmode packets", "set trunc -1", "set sw 1", "showx", "stats", "\x00", "set\t\tqueue 9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parse(line)
		again, againErr := parse(" " + line + "\t")
		if c != again || (err == nil) != (againErr == nil) {
			t.Errorf("%q is %+v, %v; with blanks around it %+v, %v", line, c, err, again, againErr)
		}
		if err == nil && c.verb == verbNone && strings.TrimSpace(line) != "" {
			t.Errorf("%q does nothing", line)
		}
		if c.verb == verbTrunc && c.number > 1<<32-1 {
			t.Errorf("%q is %d", line, c.number)
		}
	})
}

// FuzzPacketLines: what the kernel and a device say cannot begin a line of its
// own, nor steer a terminal.
func FuzzPacketLines(f *testing.F) {
	f.Add("udp_rcv+0x452/0xc50", "NO_SOCKET", "lo", "fid_miss", "l2_drops", uint16(0))
	f.Add("a\nb", "\x1b[2J", "\u202e", "\xff", "\r", uint16(1))
	keys := []string{"drop at", "origin", "input port name", "timestamp", "protocol", "original length", "drop reason"}
	f.Fuzz(func(t *testing.T, symbol, reason, device, trap, group string, origin uint16) {
		p := dropmon.Packet{
			Symbol: symbol, Reason: reason, InName: device, TrapName: trap, TrapGroup: group,
			Origin: dropmon.Origin(origin), Time: time.Unix(0, 1),
		}
		if origin == 0 {
			p.PC = 1
		}
		text := format{zone: time.UTC}.packet(&p)
		body, ok := strings.CutSuffix(text, "\n\n")
		if !ok || strings.Contains(body, "\n\n") {
			t.Fatalf("not one paragraph: %q", text)
		}
		for line := range strings.SplitSeq(body, "\n") {
			key, value, ok := strings.Cut(line, ": ")
			if !ok || !slices.Contains(keys, key) {
				t.Errorf("line %q", line)
			}
			if strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("line %q", line)
			}
		}
	})
}
