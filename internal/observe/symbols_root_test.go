//go:build root

package observe

import (
	"fmt"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestSymbolsOfAFile watches the same drops with the names of kallsyms, of a
// System.map and without any: the places and counts are the same, and so are
// the names. A module's place is told as one of that module. What was recorded
// without names gets them from the same map later.
func TestSymbolsOfAFile(t *testing.T) {
	path := testkit.SystemMap(t, nil)
	host, peer := pair(t, "sym0")
	s, err := lab.Find("tun-full-ring")
	if err != nil {
		t.Fatal(err)
	}
	ring, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	seen := map[string]record.Observation{}
	headers := map[string]record.Header{}
	var sessions []*Session
	sources := []string{kernel.SymbolsKallsyms, path, kernel.SymbolsNone}
	for _, source := range sources {
		s, err := Start(Options{Symbols: source, Filter: Filter{NetNS: []string{fmt.Sprint(host.Inode()), fmt.Sprint(ring.NetNS)}}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sessions = append(sessions, s)
	}
	udp(t, peer, "192.0.2.1:9", 20) // no socket
	// In the driver tun, which may be a module.
	if _, err := ring.Provoke(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	for i, s := range sessions {
		c := record.NewCollector(s.Header())
		headers[sources[i]] = s.Header()
		s.opt.Duration = time.Since(s.since) + 200*time.Millisecond
		if err := s.Run(t.Context(), func(iv record.Interval) error { c.Add(iv); return nil }); err != nil {
			t.Fatal(err)
		}
		seen[sources[i]] = c.Finish(s.Trailer())
	}
	want := byAddress(seen[kernel.SymbolsKallsyms])
	if len(want) < 2 {
		t.Fatalf("drops at %d places", len(want))
	}
	checkNames(t, want, byAddress(seen[path]))
	later, err := kernel.OpenNamesOf(path, headers[kernel.SymbolsNone])
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	for addr, c := range byAddress(seen[kernel.SymbolsNone]) {
		if c.Location != (record.Location{Address: c.Location.Address}) || c.Drops != want[addr].Drops {
			t.Errorf("without names: %d drops at %v, want %d", c.Drops, c.Location, want[addr].Drops)
		}
		if l := want[addr].Location; l.Module == "" && later.Resolve(uint64(addr)) != l {
			t.Errorf("named later: %v, want %v", later.Resolve(uint64(addr)), l)
		}
	}
}

// byAddress adds up the drops of each place.
func byAddress(o record.Observation) map[record.Address]record.Count {
	places := map[record.Address]record.Count{}
	for _, c := range o.Counts {
		c.Drops += places[c.Location.Address].Drops
		places[c.Location.Address] = c
	}
	return places
}

// checkNames compares places named by a System.map with those of kallsyms.
func checkNames(t *testing.T, want, got map[record.Address]record.Count) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d places, want %d", len(got), len(want))
	}
	for addr, w := range want {
		g := got[addr]
		t.Logf("%d drops at %v, by the map %v", w.Drops, w.Location, g.Location)
		same := g.Location == w.Location
		if w.Location.Module != "" {
			same = g.Location.Symbol == "" && g.Location.Module == w.Location.Module
		}
		if !same || g.Drops != w.Drops || w.Location.Symbol == "" {
			t.Errorf("%d drops at %v, by the map %d at %v", w.Drops, w.Location, g.Drops, g.Location)
		}
	}
}
