package main

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	got, err := choose(levels(), []string{"root", "lint"})
	if err != nil || len(got) != 2 || got[0].name != "lint" || got[1].name != "root" {
		t.Errorf("choose gave %v, %v; want lint and root in that order", got, err)
	}
	if _, err := choose(levels(), []string{"lnit"}); err == nil {
		t.Error("choose took a level that does not exist")
	}
}

func TestSummaryEndsWithTheCounts(t *testing.T) {
	var out bytes.Buffer
	ok := summarize(&out, []*tally{
		{level: "a", passed: 3, skipped: 1, took: time.Second},
		{level: "b", passed: 2, failed: 1, failures: []string{"b: TestX"}},
	}, leftOut{"c", "no time"}, time.Second)
	if ok {
		t.Error("summarize says that nothing failed")
	}
	if !strings.HasSuffix(out.String(), "\nFAILED b: TestX\n5 passed, 1 failed, 1 skipped\n") ||
		!strings.Contains(out.String(), "\nc        left out: no time\n") {
		t.Errorf("wrong end:\n%s", &out)
	}
	if !summarize(&out, []*tally{{passed: 1}}, leftOut{}, 0) {
		t.Error("summarize says that something failed")
	}
}

func TestLevelThatRunsNothingFails(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"go.mod": "module toy\n\ngo 1.26\n", "a.go": "package a\n"})
	var out bytes.Buffer
	ok, err := runLevels(&out, setting{dir: dir, fuzzTime: "1x"}, []string{"fuzz", "vm", "bench"}, leftOut{"vm", "no machines"})
	if err != nil {
		t.Fatal(err)
	}
	if ok || !strings.HasSuffix(out.String(), "\n0 passed, 2 failed, 0 skipped\n") {
		t.Errorf("ok = %v:\n%s", ok, &out)
	}
	if _, err := runLevels(&out, setting{dir: dir, fuzzTime: "1x"}, nil, leftOut{level: "mv"}); err == nil {
		t.Error("a level that does not exist was left out")
	}
}

// TestSchedule: what looks at the whole host begins when no test before the
// machines runs any more, and the benchmarks run alone.
func TestSchedule(t *testing.T) {
	var mu sync.Mutex
	running, said := map[string]bool{}, map[string][]string{}
	meet := func(name string, pause time.Duration) func(*runner) error {
		return func(r *runner) error {
			mu.Lock()
			for other := range running {
				said[name] = append(said[name], other)
				said[other] = append(said[other], name)
			}
			running[name] = true
			mu.Unlock()
			time.Sleep(pause)
			mu.Lock()
			delete(running, name)
			mu.Unlock()
			r.t.pass()
			return nil
		}
	}
	pause := 20 * time.Millisecond
	todo := []level{
		{"unit", "", meet("unit", pause), inTurn},
		{"soak", "", meet("soak", pause/2), beside},
		{"root", "", meet("root", pause), besideMachines},
		{"vm", "", meet("vm", 2*pause), machines},
		{"bench", "", meet("bench", 0), last},
	}
	var out bytes.Buffer
	done := (&schedule{out: &out}).run(todo)
	for i, l := range todo {
		if done[i] == nil || done[i].level != l.name || done[i].passed != 1 {
			t.Errorf("%s: %+v", l.name, done[i])
		}
	}
	for name, never := range map[string]string{"root": "unit", "soak": "root", "bench": "vm"} {
		if slices.Contains(said[name], never) {
			t.Errorf("%s ran beside %s:\n%s", name, never, &out)
		}
	}
	if len(said["bench"]) > 0 || !slices.Contains(said["root"], "vm") || !slices.Contains(said["soak"], "unit") {
		t.Errorf("beside each other ran %v", said)
	}
}
