package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// testKey names a test; test is empty for the package itself.
type testKey struct{ pkg, test string }

// collector turns the events of one `go test -json` run into results. A test
// that has subtests is not counted beside them, unless it failed by itself.
type collector struct {
	t *tally
	// byPackage counts packages instead of tests that passed; what was skipped is
	// told in any case.
	byPackage bool
	output    map[testKey]*strings.Builder
	parent    map[testKey]bool // has subtests
	order     map[string][]string
	action    map[testKey]string
}

func newCollector(t *tally, byPackage bool) *collector {
	return &collector{
		t: t, byPackage: byPackage,
		output: map[testKey]*strings.Builder{},
		parent: map[testKey]bool{},
		order:  map[string][]string{},
		action: map[testKey]string{},
	}
}

// read consumes events until the end of r. Lines that are not events are
// printed as they are.
func (c *collector) read(r io.Reader) error {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			c.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

func (c *collector) line(line string) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action == "" {
		_, _ = fmt.Fprint(c.t.out, line)
		return
	}
	k := testKey{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		// A package's own build error comes before its first event.
		_, _ = fmt.Fprint(c.t.out, e.Output)
	case "run":
		c.order[e.Package] = append(c.order[e.Package], e.Test)
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
			c.parent[testKey{e.Package, e.Test[:i]}] = true
		}
	case "output":
		c.write(k, e.Output)
	case "pass", "fail", "skip":
		if e.Test != "" {
			c.action[k] = e.Action
			return
		}
		c.endPackage(e)
	}
}

func (c *collector) write(k testKey, s string) {
	if c.output[k] == nil {
		c.output[k] = &strings.Builder{}
	}
	c.output[k].WriteString(s)
}

func (c *collector) said(k testKey) string {
	if b := c.output[k]; b != nil {
		return b.String()
	}
	return ""
}

// endPackage counts the tests of a package whose last event came.
func (c *collector) endPackage(e event) {
	if e.Action == "skip" {
		return // no test files
	}
	was := *c.t
	for _, test := range c.order[e.Package] {
		k := testKey{e.Package, test}
		switch name := short(e.Package) + " " + test; c.verdict(k, e.Action) {
		case "pass":
			if !c.parent[k] && !c.byPackage {
				c.t.pass()
			}
		case "skip":
			c.t.skip(name, skipReason(c.said(k)))
		case "fail":
			if !c.parent[k] || !c.childFailed(k) {
				c.t.fail(name, c.said(k))
			}
		}
	}
	if e.Action == "fail" && c.t.failed == was.failed {
		// Built badly, panicked outside a test, left by os.Exit …
		c.t.fail(short(e.Package), c.said(testKey{pkg: e.Package}))
	}
	if c.byPackage && e.Action == "pass" {
		c.t.pass()
	}
	delete(c.order, e.Package) // what comes of a package once more is not this again
	word := map[string]string{"pass": "ok", "fail": "FAIL"}[e.Action]
	_, _ = fmt.Fprintf(c.t.out, "%-4s %-28s %4d passed %3d failed %3d skipped %8.2f s\n",
		word, short(e.Package), c.t.passed-was.passed, c.t.failed-was.failed, c.t.skipped-was.skipped, e.Elapsed)
}

// verdict is the last action of a test. Benchmarks that ran have none, nor
// have tests that were running when the process died.
func (c *collector) verdict(k testKey, pkgAction string) string {
	if a := c.action[k]; a != "" {
		return a
	}
	if pkgAction == "pass" || c.parent[k] || strings.Contains(c.said(k), " ns/op") {
		return "pass"
	}
	return "fail"
}

func (c *collector) childFailed(k testKey) bool {
	for child, a := range c.action {
		if a == "fail" && child.pkg == k.pkg && strings.HasPrefix(child.test, k.test+"/") {
			return true
		}
	}
	return false
}

// skipReason is what a skipped test said, on one line.
func skipReason(output string) string {
	var words []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- SKIP") ||
			strings.HasPrefix(line, "Benchmark") {
			continue
		}
		words = append(words, line)
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}

// short leaves out the module's path.
func short(pkg string) string {
	const module = "github.com/whydrop/whydrop"
	if s, ok := strings.CutPrefix(pkg, module+"/"); ok {
		return s
	}
	return pkg
}
