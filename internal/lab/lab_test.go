package lab

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/record"
)

func TestFind(t *testing.T) {
	for _, want := range List() {
		got, err := Find(want.Name)
		if err != nil || got.Name != want.Name || got.Title != want.Title {
			t.Errorf("Find(%q) = %q, %v", want.Name, got.Name, err)
		}
		if want.Title == "" {
			t.Errorf("%s has no title", want.Name)
		}
	}
	_, err := Find("no-such")
	if err == nil {
		t.Fatal("Find of a scenario that does not exist gave no error")
	}
	for _, s := range List() {
		if !strings.Contains(err.Error(), s.Name) {
			t.Errorf("error %q does not name %s", err, s.Name)
		}
	}
}

// Every scenario has an expectation and every expectation a scenario.
func TestExpectedComplete(t *testing.T) {
	var scenarios, files []string
	var stations []int
	for _, s := range List() {
		scenarios = append(scenarios, s.Name)
		e, err := Expected(s.Name)
		if err != nil {
			t.Error(err)
		}
		if e.Cause != s.Name && !strings.HasPrefix(s.Name, e.Cause+"-") {
			t.Errorf("scenario %s expects cause %q", s.Name, e.Cause)
		}
		if e.Silent() != s.Silent {
			t.Errorf("scenario %s: silent is %v, but its expectation says %v", s.Name, s.Silent, e.Silent())
		}
		stations = append(stations, slices.Index(record.Stations(), e.Station))
	}
	if !slices.IsSorted(stations) {
		t.Errorf("scenarios are not in the order of the packet's way: %v, stations %v", scenarios, stations)
	}
	names, err := fs.Glob(expectedFS, "expected/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		files = append(files, strings.TrimSuffix(strings.TrimPrefix(name, "expected/"), ".yaml"))
	}
	slices.Sort(scenarios)
	slices.Sort(files)
	if !slices.Equal(scenarios, files) {
		t.Errorf("scenarios %v, expectations %v", scenarios, files)
	}
}

func TestExpectedUnknown(t *testing.T) {
	if e, err := Expected("no-such"); err == nil {
		t.Errorf("Expected of a scenario that does not exist gave %+v", e)
	}
}
