package kernel

import (
	"errors"
	"strings"
	"testing"
)

// A function is looked for in the kernel's text, and not behind it: a line that
// cannot be read is an error there, and is not met when it comes later.
func TestHasFunction(t *testing.T) {
	const text = "0000000000000000 T _text\n0000000000000000 t net_dm_cmd_trace\n0000000000000000 t net_dm_init\t[net]\n"
	unreadable := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		table, name string
		want, fails bool
	}{
		{text, "net_dm_cmd_trace", true, false},
		{text, "dm_cmd_trace", false, false},
		{text, "net_dm_init", false, false}, // a module's
		{text + "0000000000000000 T _etext\n" + unreadable, "absent", false, false},
		{text + unreadable, "net_dm_cmd_trace", true, false},
		{text + unreadable, "absent", false, true},
	} {
		h := fakeHost(t, map[string]string{"/proc/kallsyms": c.table})
		if got, err := h.hasFunction(c.name); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s in %.200s: %t, %v", c.name, c.table, got, err)
		}
	}
	if _, err := (Host{Root: t.TempDir()}).hasFunction("absent"); err == nil || errors.Is(err, ErrAddressesHidden) {
		t.Errorf("no kallsyms: %v", err)
	}
}
