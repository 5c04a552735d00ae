//go:build root

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

var updateCases = flag.Bool("update-cases", false, "write what the lab's losses were observed as into knowledge/causes/ID/cases/lab-KERNEL.txtar")

// TestDiagnoseLab: each loss of the lab is found from the least of packets, with
// their true number, as the cause that it is and as no other. TestLabRunAll loses
// more of them.
func TestDiagnoseLab(t *testing.T) {
	testkit.NeedRoot(t)
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	var host kernel.Host
	_, running, err := host.Identity()
	if err != nil {
		t.Fatal(err)
	}
	packets, scenarios := 1, lab.List()
	if *updateCases {
		packets = 50
	}
	if testing.Short() { // virtual machines run `whydrop lab run all` besides, which compares the same
		scenarios = scenarios[:3]
	}
	for _, s := range scenarios {
		t.Run(s.Name, func(t *testing.T) {
			want, err := lab.Expected(s.Name)
			if err != nil {
				t.Fatal(err)
			}
			if !want.WorksOn(running.Release) {
				t.Skipf("not on %s: %s", running.Release, want.Why)
			}
			if want.MachineOnly != "" && !testkit.InMachine() {
				t.Skipf("only in a virtual machine: %s", want.MachineOnly)
			}
			n := max(packets, want.Least)
			o, truth := labObservation(t, s, k, n)
			for tries := 0; o.Accounting.DropsAggregated < truth.Drops && !want.Silent() && testkit.HidesPID1() && tries < 2; tries++ {
				t.Log("again: this kernel hides what interrupts PID 1")
				o, truth = labObservation(t, s, k, n)
			}
			if truth.Drops != uint64(n) {
				t.Errorf("lost %d, want %d", truth.Drops, n)
			}
			d := checkLab(t, o, k, want, truth)
			if t.Failed() {
				t.Log(evidenceOf(o, d))
				return
			}
			if *updateCases {
				pruned := prune(o, causesText(t))
				if checkLab(t, pruned, k, want, truth); !t.Failed() {
					writeCase(t, s, want, pruned, diagnose.Run(&pruned, k, diagnose.Options{}))
				}
			}
		})
	}
}

// labObservation is a loss of the lab as `whydrop lab run` observes it.
func labObservation(t *testing.T, s lab.Scenario, k *diagnose.Knowledge, packets int) (record.Observation, lab.Truth) {
	t.Helper()
	setup, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := setup.Close(); err != nil {
			t.Error(err)
		}
	}()
	var truth lab.Truth
	o, err := observeLab(t.Context(), []uint32{setup.NetNS}, func() (err error) {
		truth, err = setup.Provoke(t.Context(), packets)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ask(t.Context(), &o, k)
	return o, truth
}

// TestRecordKeepsTheEvidence: a file says the same, with the same confidence,
// as the observation of which it was made.
func TestRecordKeepsTheEvidence(t *testing.T) {
	testkit.NeedRoot(t)
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	setup := prepared(t, "udp-rcvbuf")
	session, err := observe.Start(observe.Options{
		Interval: 100 * time.Millisecond, Rich: true, Counters: true, Program: release,
		Filter: observe.Filter{NetNS: []string{fmt.Sprint(setup.NetNS)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		if _, err := setup.Provoke(ctx, 20); err != nil {
			t.Error(err)
		}
		stop()
	}()
	path := filepath.Join(t.TempDir(), "loss.whydrop")
	a := &app{out: io.Discard, err: io.Discard}
	out, err := a.openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.write(ctx, session, out, k), out.close()); err != nil {
		t.Fatal(err)
	}
	o, err := a.readObservation(&watching{file: path})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Counters) == 0 || len(o.Facts) == 0 {
		t.Errorf("%d counters and %d facts in the file", len(o.Counters), len(o.Facts))
	}
	d := diagnose.Run(o, k, diagnose.Options{})
	if len(d.Findings) != 1 || d.Findings[0].Cause != "udp-rcvbuf" || d.Findings[0].Drops != 20 ||
		d.Findings[0].Confidence != record.ConfidenceCertain || len(d.Findings[0].Remedy) == 0 {
		t.Errorf("the file says:\n%s", evidenceOf(*o, d))
	}
	if r := run(t, "diagnose", "-r", path); !strings.Contains(r.out, "udp-rcvbuf") || r.code != exitOK {
		t.Errorf("%+v", r)
	}
}

// checkLab compares the diagnosis of an observation with the truth and with what
// is expected, as `whydrop lab run` does, and the first finding's class and place,
// which must be there.
func checkLab(t *testing.T, o record.Observation, k *diagnose.Knowledge, want lab.Expectation, truth lab.Truth) record.Diagnosis {
	t.Helper()
	r := labResult{Truth: truth.Drops, Counted: o.Accounting.DropsAggregated, Diagnosis: diagnose.Run(&o, k, diagnose.Options{All: true})}
	if want.Silent() {
		r.Counted = byCounters(r.Diagnosis)
	}
	for _, problem := range mismatch(r, o.Counts, want) {
		t.Error(problem)
	}
	if want.Cause == "" {
		t.Error("no cause is expected")
	}
	return r.Diagnosis
}

// evidenceOf is all that tells why a finding came out as it did.
func evidenceOf(o record.Observation, d record.Diagnosis) string {
	var b strings.Builder
	for _, c := range o.Counts {
		fmt.Fprintf(&b, "%d drops: %s at %s, device %v, %s\n", c.Drops, c.Reason.Name, c.Location, c.Device, c.Direction)
	}
	for _, c := range o.Counters {
		if c.Delta > 0 {
			fmt.Fprintf(&b, "%s +%d\n", c.Name, c.Delta)
		}
	}
	for _, f := range o.Facts {
		fmt.Fprintf(&b, "%s %s: %s %q %v %s\n", f.Kind, f.Request, f.Name, f.Value, f.Fields, f.Missing)
	}
	for _, e := range d.Ledger.Entries {
		fmt.Fprintf(&b, "ledger %s +%d, %d drops, %s, closed %v, %s %v\n", e.Counter, e.Delta, e.Drops, e.Relation, e.Closed, e.Why, e.ExplainedBy)
	}
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "found %s %s: %d by %s, %q\n  unchecked %q, next %q\n", f.Confidence, f.Cause, f.Drops, f.LostBy, f.Title, f.Unchecked, f.Next)
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "  %v %s %s %s\n", e.Supports, e.Name, e.Value, e.Says)
		}
	}
	return b.String()
}

// causesText is all cause.yaml of the knowledge base.
func causesText(t *testing.T) string {
	t.Helper()
	files, err := fs.Glob(knowledge.FS, "causes/*/cause.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range files {
		text, err := fs.ReadFile(knowledge.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

// writeCase keeps an observation as a case of its cause.
func writeCase(t *testing.T, s lab.Scenario, want lab.Expectation, o record.Observation, d record.Diagnosis) {
	t.Helper()
	dir := filepath.Join("..", "..", "knowledge", "causes", want.Cause)
	if _, err := os.Stat(filepath.Join(dir, "cause.yaml")); err != nil {
		t.Fatal(err)
	}
	text := caseText(s.Title, want.Forbidden, o, d)
	if text == nil {
		t.Logf("no case: nothing of %s is shown, and nothing is forbidden", want.Cause)
		return
	}
	path := filepath.Join(dir, "cases", "lab-"+shortRelease(o.Kernel.Release)+".txtar")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("wrote %s", path)
}

// TestLabRunAll runs every scenario as a user would, with its remedy, for several
// batches of packets: what is counted must equal what the generator and the kernel's
// counters say was lost. TestDiagnoseLab loses one.
func TestLabRunAll(t *testing.T) {
	testkit.NeedRoot(t)
	if testing.Short() {
		t.Skip("-short: in a machine e2e/cmd/vmtest runs `whydrop lab run all` as a job of its own and counts each scenario; elsewhere leave -short out")
	}
	const n = "150"
	r := run(t, "lab", "run", "all", "--packets", n, "-j")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if len(lines) != len(lab.List())+1 {
		t.Fatalf("exit status %d, %d lines, %d scenarios and a matrix: %s", r.code, len(lines), len(lab.List()), r.err)
	}
	checkMatrix(t, lines[len(lines)-1])
	wrong := 0
	for i, s := range lab.List() {
		t.Run(s.Name, func(t *testing.T) {
			l := labLineOf(t, lines[i])
			if l.Skipped != "" {
				checkLeftOut(t, s)
				t.Skip(l.Skipped)
			}
			if len(l.Mismatch) > 0 {
				wrong++
			}
			for tries := 0; l.Counted < l.Truth && testkit.HidesPID1() && tries < 2; tries++ {
				t.Logf("again: counted %d of %d, and this kernel hides what interrupts PID 1", l.Counted, l.Truth)
				l = labLineOf(t, run(t, "lab", "run", s.Name, "--packets", n, "-j").out)
			}
			if l.Scenario != s.Name || fmt.Sprint(l.Truth) != leastOf(t, s, n) || l.Counted != l.Truth || len(l.Mismatch) != 0 {
				t.Errorf("%s: lost %d, counted %d, mismatch %q", l.Scenario, l.Truth, l.Counted, l.Mismatch)
			}
		})
	}
	if (r.code == exitOK) != (wrong == 0) {
		t.Errorf("exit status %d with %d scenarios not as expected: %s", r.code, wrong, r.err)
	}
}

// checkLeftOut: only what the expectation leaves out of this host, or of this
// kernel, may not run.
func checkLeftOut(t *testing.T, s lab.Scenario) {
	t.Helper()
	want, err := lab.Expected(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	var host kernel.Host
	_, running, err := host.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if want.MachineOnly == "" && want.WorksOn(running.Release) {
		t.Fatalf("%s did not run, and nothing is expected to keep it from running on %s", s.Name, running.Release)
	}
}

// leastOf is how many packets a scenario loses when asked for n.
func leastOf(t *testing.T, s lab.Scenario, n string) string {
	t.Helper()
	want, err := lab.Expected(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(max(asked, want.Least))
}

// checkMatrix looks at the last that lab run all prints: a row for each
// scenario, and nothing found that was not provoked.
func checkMatrix(t *testing.T, line string) {
	t.Helper()
	var m labMatrix
	if err := json.Unmarshal([]byte(line), &m); err != nil || m.Type != typeMatrix {
		t.Fatalf("type %q, %v\n%s", m.Type, err, line)
	}
	if len(m.Rows) != len(lab.List()) || m.Right+m.Wrong+m.Skipped != len(m.Rows) {
		t.Errorf("%d rows; %d right, %d wrong, %d skipped of %d", len(m.Rows), m.Right, m.Wrong, m.Skipped, len(lab.List()))
	}
	for _, row := range m.Rows {
		if row.Skipped == "" && !row.right() {
			t.Errorf("%s: %s", row.Truth, row.text())
		}
	}
}

func labLineOf(t *testing.T, line string) (l labResult) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), &l); err != nil {
		t.Fatalf("%v\n%s", err, line)
	}
	return l
}
