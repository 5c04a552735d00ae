// Package results turns the output of test binaries into the events of
// go test -json, and counts them.
//
// It must not know where the tests ran, nor forgive a failure.
package results

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Event is a line of go test -json.
type Event struct {
	Action  string
	Package string  `json:",omitempty"`
	Test    string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"` // seconds
	Output  string  `json:",omitempty"`
}

// Convert makes events of what a test binary of a package printed under
// -test.v=test2json, which marks the lines of the testing package with ^V,
// within that many seconds. An exit status other than 0 fails the package.
func Convert(ctx context.Context, pkg, output string, code int, seconds float64) ([]Event, error) {
	if code != 0 {
		output += fmt.Sprintf("\nexit status %d\n\x16FAIL\n", code)
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-t", "-p", pkg)
	cmd.Stdin = strings.NewReader(output)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool test2json: %w\n%s", err, &said)
	}
	events, err := decode(out)
	for i, e := range events {
		if e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			events[i].Elapsed = seconds
		}
	}
	return events, err
}

func decode(stream []byte) ([]Event, error) {
	var events []Event
	dec := json.NewDecoder(bytes.NewReader(stream))
	for {
		var e Event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode test events: %w", err)
		}
		events = append(events, e)
	}
}

// Result is a test that failed or was skipped, with what it said.
type Result struct{ Name, Output string }

// Tally counts tests. One that has subtests is not counted beside them,
// unless it failed by itself.
type Tally struct {
	Passed          int
	Failed, Skipped []Result
}

// Count adds the events of one package.
func (t *Tally) Count(events []Event) {
	said, verdict := map[string]string{}, map[string]string{} // by test
	var order []string
	pkg, last := "", ""
	for _, e := range events {
		pkg = e.Package
		switch e.Action {
		case "run":
			order = append(order, e.Test)
		case "output":
			said[e.Test] += e.Output
		case "pass", "fail", "skip":
			verdict[e.Test] = e.Action
			if e.Test == "" {
				last = e.Action
			}
		}
	}
	parent, childFailed := map[string]bool{}, map[string]bool{}
	for _, test := range order {
		for i, c := range test {
			if c == '/' {
				parent[test[:i]] = true
				childFailed[test[:i]] = childFailed[test[:i]] || verdict[test] == "fail"
			}
		}
	}
	failed := len(t.Failed)
	for _, test := range order {
		r := Result{pkg + " " + test, said[test]}
		switch v := verdict[test]; {
		case v == "fail" && !childFailed[test], v == "" && !parent[test]: // or was running when the process ended
			t.Failed = append(t.Failed, r)
		case parent[test]:
		case v == "skip":
			t.Skipped = append(t.Skipped, r)
		case v == "pass":
			t.Passed++
		}
	}
	if last != "pass" && last != "skip" && len(t.Failed) == failed {
		t.Failed = append(t.Failed, Result{pkg, said[""]})
	}
}

// Reason is what a test said, without the marks of the testing package.
func (r Result) Reason() string {
	var lines []string
	for line := range strings.Lines(r.Output) {
		line = strings.TrimSpace(line)
		if line != "" && line != "FAIL" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// Print writes a tally for people.
func (t *Tally) Print(w io.Writer) {
	for _, r := range t.Skipped {
		_, _ = fmt.Fprintf(w, "SKIP %s: %s\n", r.Name, strings.ReplaceAll(r.Reason(), "\n", " "))
	}
	for _, r := range t.Failed {
		_, _ = fmt.Fprintf(w, "FAIL %s\n    %s\n", r.Name, strings.ReplaceAll(r.Reason(), "\n", "\n    "))
	}
}
