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
	if lines := strings.Split(out.String(), "\n"); !strings.HasPrefix(lines[0], "one") || lines[1] != "" {
		t.Errorf("printed:\n%s", &out)
	}
	if err := a.labRunAll(ctx, labOptions{packets: 1}); err == nil {
		t.Error("the command: no error")
	}
}

// Nothing that is printed steers a terminal.
func TestLabPrintsClean(t *testing.T) {
	const bad = "\x1b[2J"
	var out bytes.Buffer
	a := &app{out: &out, color: "never"}
	said := labCommand{Command: bad, Output: bad + "\n" + bad, Code: 1}
	r := labResult{
		Scenario: bad, Title: bad, Built: []string{bad}, Steps: []string{bad}, Mismatch: []string{bad}, Skipped: bad,
		Evidence: []record.Evidence{{Name: bad, Value: bad, Before: bad, After: bad, Command: bad}},
		Remedy: &labCure{
			Kind: bad, Why: bad, Command: &said, Tried: true, Outcome: record.Outcome(bad),
			Verify: []labCommand{{Command: bad, Refused: bad}}, Undo: &said,
		},
	}
	for _, kind := range []string{lab.RemedyCommand, lab.RemedyRepair, lab.RemedyNone} {
		r.Remedy.Kind = kind
		if err := a.printLab(r); err != nil {
			t.Fatal(err)
		}
	}
	m := newLabMatrix()
	m.Rows = append(m.Rows, labMatrixRow{Truth: bad, Cause: bad, First: bad, Found: map[string]uint64{bad: 1}, Forbidden: []string{bad}})
	if err := a.labMatrix(m); err != nil {
		t.Fatal(err)
	}
	for _, skipped := range []string{"", bad} {
		r.Skipped = skipped
		if err := a.labLine(r); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), `\x1b[2J`) < 30 {
		t.Errorf("printed: %q", &out)
	}
}

// The matrix has what was found for what was provoked, and says which of it only
// looks like it.
func TestLabMatrix(t *testing.T) {
	found := func(ids ...string) record.Diagnosis {
		var d record.Diagnosis
		for i, id := range ids {
			d.Findings = append(d.Findings, record.Finding{Cause: id, Drops: uint64(10 - i)})
		}
		return d
	}
	m := newLabMatrix()
	for _, r := range []labResult{
		{Scenario: "udp-rcvbuf", Diagnosis: found("udp-rcvbuf"), Remedy: &labCure{Kind: lab.RemedyRepair, Tried: true, Sent: 100, Lost: 1}},
		{Scenario: "udp-noport", Diagnosis: found("udp-rcvbuf", "not-known"), Remedy: &labCure{Kind: lab.RemedyRepair, Tried: true, Sent: 100, Lost: 2}},
		{Scenario: "xdp-drop", Diagnosis: found("xdp-drop", "tc-ingress-drop"), Remedy: &labCure{Kind: lab.RemedyCommand, Tried: true, Sent: 100, Command: &labCommand{}}},
		{Scenario: "ct-table-full", Diagnosis: found("ct-table-full"), Remedy: &labCure{Kind: lab.RemedyCommand, Command: &labCommand{Refused: "no"}}},
		{Scenario: "icmp-bad", Diagnosis: found()},
		{Scenario: "ip-ttl", Skipped: "not here"},
	} {
		m.add(r)
	}
	want := labMatrix{Right: 2, Wrong: 3, Skipped: 1, Cured: 1, Repaired: 1, Refused: 1}
	if m.Right != want.Right || m.Wrong != want.Wrong || m.Skipped != want.Skipped || m.Cured != want.Cured || m.Repaired != want.Repaired || m.Refused != want.Refused {
		t.Errorf("%+v", m)
	}
	if got := strings.Join(m.Columns, " "); got != "ct-table-full not-known tc-ingress-drop udp-rcvbuf xdp-drop" {
		t.Errorf("columns %s", got)
	}
	for i, text := range []string{
		"udp-rcvbuf 10", "udp-rcvbuf 10 FORBIDDEN, not-known 9", "xdp-drop 10, tc-ingress-drop 9 FORBIDDEN",
		"ct-table-full 10", "nothing, want icmp-bad", "(skipped)",
	} {
		if got := m.Rows[i].text(); got != text {
			t.Errorf("%s: %q, want %q", m.Rows[i].Truth, got, text)
		}
	}
}

// A remedy is what can be run as it stands and changes something.
func TestCompleteRemedy(t *testing.T) {
	f := record.Finding{Cause: "x", Remedy: []record.Remedy{
		{Command: "ip link show", Undo: looks},
		{Command: "ip route add default via GATEWAY", Undo: "ip route del default"},
		{Command: "sysctl -w net.ipv4.ip_forward=1", Undo: "sysctl -w net.ipv4.ip_forward=0"},
	}}
	if r, err := completeRemedy(f); err != nil || r.Command != f.Remedy[2].Command {
		t.Errorf("%+v, %v", r, err)
	}
	f.Remedy = f.Remedy[:2]
	if r, err := completeRemedy(f); err == nil || !strings.Contains(err.Error(), "GATEWAY is to be filled in") {
		t.Errorf("%+v, %v", r, err)
	}
	f.Remedy = f.Remedy[:1]
	if r, err := completeRemedy(f); err == nil || !strings.Contains(err.Error(), "none that changes") {
		t.Errorf("%+v, %v", r, err)
	}
}

// What is not as it should be after a remedy is told.
func TestCureMismatch(t *testing.T) {
	for _, tt := range []struct {
		name string
		cure *labCure
		want string
	}{
		{"none", nil, ""},
		{"gone", &labCure{Tried: true, Sent: 100, Lost: 1, Again: 1, Outcome: record.OutcomeLess}, ""},
		{"refused", &labCure{Command: &labCommand{Refused: "no", Code: 1}}, ""},
		{"still lost", &labCure{Tried: true, Sent: 100, Lost: 2}, "2 of 100 packets are still lost"},
		{"found again", &labCure{Tried: true, Sent: 100, Again: 50}, "whydrop found 50 of 100"},
		{"whydrop does not agree", &labCure{Tried: true, Sent: 100, Outcome: record.OutcomeSame}, "whydrop says same"},
		{"the command failed", &labCure{Command: &labCommand{Command: "x", Code: 2, Output: "no"}}, `remedy: "x": exit status 2: no`},
		{"a look failed", &labCure{Verify: []labCommand{{Command: "y", Code: 1}}}, `verify: "y": exit status 1`},
		{"lnstat", &labCure{Verify: []labCommand{{Command: "lnstat -c1", Code: 1, Output: "3"}}}, ""},
		{"lnstat without a number", &labCure{Verify: []labCommand{{Command: "lnstat -c1", Code: 1, Output: "no"}}}, "verify"},
		{"the undo failed", &labCure{Undo: &labCommand{Command: "z", Code: -1}}, "undo"},
	} {
		got := strings.Join(tt.cure.mismatch(), "; ")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
