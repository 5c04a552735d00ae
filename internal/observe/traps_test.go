package observe

import (
	"errors"
	"regexp"
	"slices"
	"testing"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// TestGenericTraps: what is known of traps says the same of them as the types
// here: which are drops, and which only go on into the kernel.
func TestGenericTraps(t *testing.T) {
	b, err := knowledge.FS.ReadFile("reasons/devlink.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var exceptions, drops []string
	for _, m := range regexp.MustCompile(`(?m)^  (\w+):\n.*\n.*\n    sentence: "The network card (dropped|handed)`).FindAllSubmatch(b, -1) {
		if string(m[2]) == "handed" {
			exceptions = append(exceptions, string(m[1]))
		} else {
			drops = append(drops, string(m[1]))
		}
	}
	slices.Sort(exceptions)
	slices.Sort(drops)
	if !slices.Equal(exceptions, exceptionTraps) || !slices.Equal(drops, dropTraps) {
		t.Errorf("known are exceptions %q\nand drops %q", exceptions, drops)
	}
}

// TestAskedTrap: the same names are traps for each source, whatever reasons the
// kernel has.
func TestAskedTrap(t *testing.T) {
	near := &kernel.UnknownReasonError{Nearest: []string{"TAP_FILTER"}}
	far := &kernel.UnknownReasonError{}
	blind := &kernel.UnknownReasonError{Why: errors.New("no list")}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"dmac_filter", near, "dmac_filter"},
		{"DMAC_FILTER", near, "dmac_filter"},
		{"dmac_filter", blind, "dmac_filter"},
		{"unresolved_neigh", near, "unresolved_neigh"},
		{"a_drivers_own", far, "a_drivers_own"},
		{"dmac_filtre", near, ""},
		{"a_drivers_own", blind, ""},
		{"A_DRIVERS_OWN", far, ""},
		{"", far, ""},
		{"dmac_filter", nil, ""},
	} {
		got, ok := askedTrap(c.name, c.err)
		if ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%q with %v: %q %v, want %q", c.name, c.err, got, ok, c.want)
		}
	}
}

// TestTrapNearAReason: a trap can be asked for though a reason has nearly its
// name, on each source alike.
func TestTrapNearAReason(t *testing.T) {
	s := testSite(t, Options{Filter: Filter{Reasons: []string{"dmac_filter"}}})
	reasons := &fakeReasons{&kernel.UnknownReasonError{Name: "dmac_filter", Nearest: []string{"TAP_FILTER"}}}
	trap, other := record.Key{Reason: trapReason("dmac_filter", "l2_drops")}, record.Key{Reason: record.Reason{Name: "NO_SOCKET"}}
	for name, compile := range map[string]func() (matcher, error){
		SourceSkbDrop: func() (matcher, error) { return s.opt.Filter.compile(reasons, s.names) },
		SourceDropmon: func() (matcher, error) { return dropmonMatch(s) },
	} {
		m, err := compile()
		if err != nil || !m.Match(trap) || m.Match(other) {
			t.Errorf("%s: %v, chooses the trap: %v, another reason: %v", name, err, m.Match(trap), m.Match(other))
		}
	}
}

// fakeReasons know no reason.
type fakeReasons struct{ err error }

func (f *fakeReasons) Parse(string) ([]record.Reason, error) { return nil, f.err }
