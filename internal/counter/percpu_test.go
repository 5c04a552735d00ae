package counter

import (
	"math"
	"testing"
)

func TestParseStat(t *testing.T) {
	values, err := parseConntrack(load(t, "nf_conntrack-4.19"), "/proc/net/stat/nf_conntrack")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{
		"nf_conntrack.searched": 0, "nf_conntrack.found": 0x20, "nf_conntrack.invalid": 0x1b,
		"nf_conntrack.insert_failed": 3 + math.MaxUint32, "nf_conntrack.drop": 6,
		"nf_conntrack.early_drop": 2, "nf_conntrack.search_restart": 5,
	} {
		if got := value(t, values, name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "", ""},
		{"names alone", "entries a\n", "x.entries 0, x.a 0", ""},
		{"largest", "a\nffffffffffffffff\n", "x.a 18446744073709551615", ""},
		{"sum too large", "a\nffffffffffffffff\n1\n", "", "above 64 bits"},
		{"too large", "a\n10000000000000000\n", "", "out of range"},
		{"fewer values", "a b\n1\n", "", "2 names but 1 values"},
		{"more values", "a b\n1 2 3\n", "x.a 1, x.b 2", ""},
		{"negative", "a\n-1\n", "", "column 1"},
		{"cut off", "a\n1\n2", "", "cut off"},
		{"entries, the same in every line", "entries a\n5 1\n5 2\n", "x.entries 5, x.a 3", ""},
		{"no names", "\n1\n", "", "names no column"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parsePerCPU([]byte(c.text), "/proc/net/stat/x")
			check(t, values, err, c.want, c.wantErr)
		})
	}
}
