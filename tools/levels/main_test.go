package main

import (
	"bytes"
	"strings"
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
	}, leftOut{"c", "no time"})
	if ok {
		t.Error("summarize says that nothing failed")
	}
	if !strings.HasSuffix(out.String(), "\nFAILED b: TestX\n5 passed, 1 failed, 1 skipped\n") ||
		!strings.Contains(out.String(), "\nc        left out: no time\n") {
		t.Errorf("wrong end:\n%s", &out)
	}
	if !summarize(&out, []*tally{{passed: 1}}, leftOut{}) {
		t.Error("summarize says that something failed")
	}
}

func TestLevelThatRunsNothingFails(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"go.mod": "module toy\n\ngo 1.26\n", "a.go": "package a\n"})
	var out bytes.Buffer
	ok, err := runLevels(&out, dir, "1x", []string{"fuzz", "vm", "bench"}, leftOut{"vm", "no machines"})
	if err != nil {
		t.Fatal(err)
	}
	if ok || !strings.HasSuffix(out.String(), "\n0 passed, 2 failed, 0 skipped\n") {
		t.Errorf("ok = %v:\n%s", ok, &out)
	}
	if _, err := runLevels(&out, dir, "1x", nil, leftOut{level: "mv"}); err == nil {
		t.Error("a level that does not exist was left out")
	}
}
