package counter

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// catalogued are the names that knowledge/counters describes.
func catalogued(t *testing.T) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob("../../knowledge/counters/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?m)^  ([^ #]+):$`)
	names := map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range entry.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
	}
	if len(names) < 500 {
		t.Fatalf("only %d counters in %v", len(names), paths)
	}
	return names
}

// number is the end of a counter's name that an entry has an N for.
var number = regexp.MustCompile(`\d+$`)

// TestCatalogueHasProc: what a file of /proc had on any kernel from 2.6.32 to
// 7.2, and what the log can say, is in the catalogue.
func TestCatalogueHasProc(t *testing.T) {
	known := catalogued(t)
	compared := map[string]bool{}
	look := func(name, where string) {
		if compared[name] {
			return
		}
		compared[name] = true
		if !known[name] && !known[number.ReplaceAllString(name, "N")] {
			t.Errorf("%s (%s) is not in knowledge/counters", name, where)
		}
	}
	for _, f := range fixtures(t) {
		for _, v := range f.parse(t) {
			look(v.Name, f.kernel)
		}
	}
	paths, err := filepath.Glob("testdata/proc/*/dev_snmp6-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			if name, _ := word([]byte(line)); len(name) > 0 {
				look("dev_snmp6."+string(name), path)
			}
		}
	}
	for _, v := range (&kmsgCounts{}).values(kmsgPath) {
		look(v.Name, kmsgPath)
	}
	look(interrupts(nic{}, "", 0).Name, interruptsSource)
	if len(compared) < 650 {
		t.Errorf("only %d names", len(compared))
	}
}
