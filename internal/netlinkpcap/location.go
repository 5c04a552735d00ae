package netlinkpcap

import (
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// symbolRoom is how many bytes of a location's name an alert carries at most:
// the kernel formats it into a buffer of 40 bytes, without saying that it cut
// it (NET_DM_MAX_SYMBOL_LEN, net/core/drop_monitor.c).
const symbolRoom = 39

// parseLocation is the location of an alert: the address and the kernel's text
// for it (%pS: symbol+0xoffset/0xsize [module], or the address where it has no
// name). Of a text that was cut it keeps what is whole. Where the module was
// cut off, nothing tells that there is one.
func parseLocation(text string, pc uint64) record.Location {
	l := record.Location{Address: record.Address(pc)}
	cut := len(text) >= symbolRoom
	name, rest, found := strings.Cut(text, "+0x")
	switch {
	case name == "" || strings.ContainsAny(name, " /"):
		return l
	case !found:
		if cut && !strings.HasPrefix(name, "0x") {
			l.Symbol, l.OffsetCut = cutName(name), true
		}
		return l
	}
	digits, rest, whole := strings.Cut(rest, "/")
	offset, err := strconv.ParseUint(digits, 16, 64)
	if !whole || err != nil {
		if cut {
			l.Symbol, l.OffsetCut = name, true
		}
		return l
	}
	l.Symbol, l.Offset = name, offset
	_, module, _ := strings.Cut(rest, " [")
	if module, ok := strings.CutSuffix(module, "]"); ok {
		// A build id may stand behind the name (CONFIG_STACKTRACE_BUILD_ID).
		l.Module, _, _ = strings.Cut(module, " ")
	}
	return l
}

// cutName is a name that goes on, unless the cut is just behind it.
func cutName(text string) string {
	for _, end := range []string{"+0", "+"} {
		if name, ok := strings.CutSuffix(text, end); ok {
			return name
		}
	}
	return text + "…"
}
