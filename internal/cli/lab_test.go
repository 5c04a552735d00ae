package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/record"
)

var scenarios = []lab.Scenario{{Name: "one"}, {Name: "two"}, {Name: "three"}}

// outcomes are results by name; others are as expected.
func outcomes(of map[string]labResult) func(lab.Scenario) labResult {
	return func(s lab.Scenario) labResult {
		r := of[s.Name]
		r.Scenario = s.Name
		return r
	}
}

func notHere(t *testing.T) labResult {
	t.Helper()
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	return notRun(lab.Scenario{Name: "two"}, k, &exitError{exitUnavailable, &notOnKernelError{"two", "5.10.0", "no such device"}})
}

// What a kernel does not have is no failure; what differs is.
func TestLabSkips(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	if err := a.labRunEach(t.Context(), scenarios, outcomes(map[string]labResult{"two": notHere(t)})); err != nil {
		t.Errorf("with one skipped: %v", err)
	}
	if want := "two                      skipped: lab two: not on Linux 5.10.0: no such device\n"; !strings.Contains(out.String(), want) {
		t.Errorf("printed:\n%s", &out)
	}
	err := a.labRunEach(t.Context(), scenarios, outcomes(map[string]labResult{"two": notHere(t), "three": {Mismatch: []string{"counted 0, lost 1"}}}))
	if exitCode(err) != exitFinding || !strings.Contains(err.Error(), "1 of 3 scenarios not as expected, 1 skipped") {
		t.Errorf("with one that differs: %v", err)
	}
}

// A program that reads the results finds lists, and the reason twice: it may
// know only of the one in mismatch.
func TestLabNotRunJSON(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, json: true}
	if err := a.labLine(notHere(t)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "null") {
		t.Errorf("null in %s", &out)
	}
	var r labResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Mismatch) != 1 || !strings.Contains(r.Mismatch[0], ": not on Linux ") || r.Skipped != r.Mismatch[0] {
		t.Errorf("%+v", r)
	}
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	if r := notRun(scenarios[0], k, errors.New("no room")); r.Skipped != "" || len(r.Mismatch) != 1 {
		t.Errorf("one that failed: %+v", r)
	}
}

// An interrupted run must not look like one in which all went well.
func TestLabInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	a := &app{out: &out}
	err := a.labRunEach(ctx, scenarios, func(s lab.Scenario) labResult {
		if s.Name == "two" {
			cancel()
			return labResult{Scenario: s.Name, Mismatch: []string{"left behind"}}
		}
		return labResult{Scenario: s.Name}
	})
	if exitCode(err) != exitPartial || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "after 1 of 3") || !strings.Contains(err.Error(), "left behind") {
		t.Errorf("%v", err)
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("printed:\n%s", &out)
	}
	if err := a.labRunAll(ctx, 1); err == nil {
		t.Error("the command: no error")
	}
}

// Nothing that is printed steers a terminal.
func TestLabPrintsClean(t *testing.T) {
	const bad = "\x1b[2J"
	var out bytes.Buffer
	a := &app{out: &out, color: "never"}
	r := labResult{
		Scenario: bad, Mismatch: []string{bad}, Skipped: bad,
		Evidence: []record.Evidence{{Name: bad, Value: bad, Before: bad, After: bad}},
	}
	if err := a.printLab(lab.Scenario{Name: bad, Title: bad}, r); err != nil {
		t.Fatal(err)
	}
	for _, skipped := range []string{"", bad} {
		r.Skipped = skipped
		if err := a.labLine(r); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), `\x1b[2J`) != 10 {
		t.Errorf("printed: %q", &out)
	}
}
