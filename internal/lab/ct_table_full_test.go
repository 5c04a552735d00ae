package lab

import (
	"bytes"
	"errors"
	"testing"
)

func TestParseConntrackDrops(t *testing.T) {
	const head = "entries  searched found drop early_drop\n"
	for _, c := range []struct {
		name, text string
		want       uint64
		bad        bool
	}{
		{"one CPU", head + "00000005  00000000 00000000 00000010 00000003\n", 16, false},
		{"two CPUs", head + "5 0 0 a 3\n5 0 0 ffffffff 3\n", 0x100000009, false},
		{"no CPU", head, 0, false},
		{"empty", "", 0, true},
		{"no column", "entries early_drop\n1 2\n", 0, true},
		{"short line", head + "5 0 0\n", 0, true},
		{"not a number", head + "5 0 0 x 3\n", 0, true},
	} {
		got, err := parseConntrackDrops([]byte(c.text))
		if got != c.want && !c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %d, %v", c.name, got, err)
		}
	}
	if _, err := parseConntrackDrops([]byte("entries\n")); !errors.Is(err, errNoCounter) {
		t.Errorf("without the column: %v", err)
	}
}

func FuzzParseConntrackDrops(f *testing.F) {
	f.Add([]byte("entries drop early_drop\n1 2 3\n"))
	f.Add([]byte("entries\n1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if sum, err := parseConntrackDrops(text); err != nil && sum != 0 {
			t.Errorf("%d and %v", sum, err)
		}
	})
}

// Each entry has its source in both directions, and nothing else changes.
func TestEntrySource(t *testing.T) {
	e := newEntry()
	before := bytes.Clone(e.request)
	if e.sources[0] < 0 || e.sources[0] == e.sources[1] {
		t.Fatalf("sources at %v", e.sources)
	}
	const number = 0x12345
	e.setSource(number)
	if n := bytes.Count(e.request, []byte{10, 0x01, 0x23, 0x45}); n != 2 {
		t.Errorf("the source is there %d times", n)
	}
	differ := 0
	for i := range e.request {
		if e.request[i] != before[i] {
			differ++
		}
	}
	if differ != 2*3 {
		t.Errorf("%d bytes changed", differ)
	}
}
