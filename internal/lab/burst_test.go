package lab

import (
	"errors"
	"testing"
)

func TestParseBacklog(t *testing.T) {
	const zeros = "00000001 00000000 00000002 0 0 0 0 0 00000000 00000000 00000000 "
	for _, c := range []struct {
		name, text string
		want       uint64
		wrong      bool
	}{
		{"two CPUs", zeros + "0000000a 00000000\n" + zeros + "000003e9 00000001 3e9 0\n", 1011, false},
		{"none", "", 0, false},
		{"a kernel before 5.10", zeros + "\n", 0, true},
		{"no number", zeros + "x\n", 0, true},
	} {
		got, err := parseBacklog([]byte(c.text))
		if got != c.want && !c.wrong || (err != nil) != c.wrong {
			t.Errorf("%s: %d, %v", c.name, got, err)
		}
	}
}

func TestParsePairs(t *testing.T) {
	text := []byte("XfrmInError             \t0\nXfrmInPolBlock          \t18446744073709551615\nXfrmInBad \tx\n")
	if v, err := parsePairs(text, "XfrmInPolBlock"); err != nil || v != 1<<64-1 {
		t.Errorf("%d, %v", v, err)
	}
	if _, err := parsePairs(text, "XfrmIn"); !errors.Is(err, errNoCounter) {
		t.Errorf("a name that is not there: %v", err)
	}
	if _, err := parsePairs(text, "XfrmInBad"); err == nil || errors.Is(err, errNoCounter) {
		t.Errorf("a value that is no number: %v", err)
	}
}

func FuzzParseBacklog(f *testing.F) {
	f.Add([]byte("1 0 2 0 0 0 0 0 0 0 0 a 0\n"))
	f.Add([]byte("1 0 2\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n, err := parseBacklog(text); err != nil && n != 0 {
			t.Errorf("%d with error %v", n, err)
		}
	})
}

func FuzzParsePairs(f *testing.F) {
	f.Add([]byte("XfrmInError \t7\n"), "XfrmInError")
	f.Add([]byte("XfrmInError\n7 7 7"), "7")
	f.Fuzz(func(t *testing.T, text []byte, field string) {
		if n, err := parsePairs(text, field); err != nil && n != 0 {
			t.Errorf("%d with error %v", n, err)
		}
	})
}
