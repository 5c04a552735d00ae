//go:build root

package kernel

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/record"
)

// asks says whether the running kernel has what asker needs.
func asks(t *testing.T) bool {
	t.Helper()
	release, err := Host{}.Release()
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseVersion(release)
	if err != nil {
		t.Fatal(err)
	}
	return v.AtLeast(5, 13)
}

// TestAskedNames asks this kernel for every function of its table, in its middle,
// and in the padding before it. It tells the same name, or another one of the same
// function; what it is not sure of it leaves to the table.
func TestAskedNames(t *testing.T) {
	a, err := newAsker()
	if !asks(t) {
		if err == nil {
			t.Errorf("bpf_snprintf before Linux 5.13: %v", a.close())
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	list, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	table, err := ParseSymbols(bytes.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 16
	}
	naive := parseNaively(t, list)
	asked, unsure, others := 0, 0, 0
	for i := 0; i < len(table.symbols); i += step {
		if table.symbols[i].isEnd() {
			continue
		}
		addr := table.symbols[i].addr
		for _, place := range []uint64{addr + 1, addr - 1} {
			want := table.Resolve(place)
			if want.Symbol == "" || want.Beyond || isMarker(want.Symbol) || isMade(want.Module) {
				continue
			}
			got, sure, err := a.resolve(place)
			if err != nil {
				t.Fatal(err)
			}
			asked++
			switch {
			case !sure:
				unsure++
			case got == want:
			case got.Offset == want.Offset && got.Module == want.Module && slices.Contains(naive.names[place-got.Offset], listed(got)):
				others++ // the same code with two names
			default:
				t.Errorf("%#x: asked %v, by the table %v", place, got, want)
			}
		}
	}
	t.Logf("asked for %d: %d left to the table, %d by another name of theirs", asked, unsure, others)
	if asked < 100_000/step/2 || unsure > asked/20 || others > asked/100 {
		t.Errorf("asked for %d, %d left to the table, %d by another name", asked, unsure, others)
	}
}

// listed is a function as parseNaively lists it.
func listed(at record.Location) string {
	if at.Module == "" {
		return at.Symbol
	}
	return at.Symbol + " [" + at.Module + "]"
}

// TestNamesWithoutTable names a place in the kernel without reading its table.
func TestNamesWithoutTable(t *testing.T) {
	head, err := Host{}.kallsymsHead()
	if err != nil {
		t.Fatal(err)
	}
	n, err := Host{}.OpenNames(SymbolsKallsyms)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	l := n.from.(*liveNames)
	if l.asker != nil || l.table != nil {
		t.Error("something was loaded before there was an address")
	}
	// System calls may have several names.
	head = slices.DeleteFunc(head, func(a record.Anchor) bool { return isDoubtful(a.Symbol) || strings.Contains(a.Symbol, "_sys_") })
	if len(head) < headFunctions/4 {
		t.Fatalf("only %v", head)
	}
	want := head[len(head)/2]
	if got := n.Resolve(uint64(want.Address)); got.Symbol != want.Symbol {
		t.Errorf("%v, want %s", got, want.Symbol)
	}
	if (l.table == nil) != asks(t) || (l.asker != nil) != asks(t) {
		t.Errorf("asks %t, but the table was read: %t", l.asker != nil, l.table != nil)
	}
}

func BenchmarkOpenNames(b *testing.B) {
	for b.Loop() {
		n, err := Host{}.OpenNames(SymbolsKallsyms)
		if err != nil {
			b.Fatal(err)
		}
		n.Close()
	}
}

// BenchmarkFirstName is what the first drop costs.
func BenchmarkFirstName(b *testing.B) {
	head, err := Host{}.kallsymsHead()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n, err := Host{}.OpenNames(SymbolsKallsyms)
		if err != nil {
			b.Fatal(err)
		}
		n.Resolve(uint64(head[0].Address) + 1)
		n.Close()
	}
}

func BenchmarkAsk(b *testing.B) {
	a, err := newAsker()
	if err != nil {
		b.Fatal(err)
	}
	defer a.close()
	head, err := Host{}.kallsymsHead()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := a.resolve(uint64(head[len(head)-1].Address)); err != nil {
			b.Fatal(err)
		}
	}
}
