package results

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kernel is what was found out about a kernel.
type Kernel struct {
	Suite, Version, Release string
	// Boot is the seconds until its first process ran, Seconds those of all.
	Boot, Seconds float64
	Doctor        Doctor
	Labs          []Lab
	// HaveCast says that it has the kfunc bpf_rdonly_cast, QdiscTracepoint
	// that it has the tracepoint qdisc:qdisc_drop.
	HaveCast, QdiscTracepoint bool
	Tally
}

// Add adds what another machine with the same kernel found out.
func (k *Kernel) Add(other Kernel) {
	k.Seconds += other.Seconds
	if other.Doctor.Program != "" {
		k.Doctor = other.Doctor
	}
	k.Labs = append(k.Labs, other.Labs...)
	k.HaveCast = k.HaveCast || other.HaveCast
	k.QdiscTracepoint = k.QdiscTracepoint || other.QdiscTracepoint
	k.Passed += other.Passed
	k.Failed = append(k.Failed, other.Failed...)
	k.Skipped = append(k.Skipped, other.Skipped...)
}

// Doctor is what is used of whydrop doctor -j.
type Doctor struct {
	Kernel struct {
		KfreeSkbArgs int    `json:"kfree_skb_args"`
		ReasonsFrom  string `json:"reasons_from"`
	}
	Source  struct{ State, Why string }
	Program string `json:"program_type"`
	Checks  []Check
}

// Check is one of its questions.
type Check struct {
	Name, Title, State, Why, Detail string
	NeededFor                       string `json:"needed_for"`
}

func (d Doctor) check(name string) Check {
	if i := slices.IndexFunc(d.Checks, func(c Check) bool { return c.Name == name }); i >= 0 {
		return d.Checks[i]
	}
	return Check{State: "?"}
}

// Lab is a loss that whydrop lab run reproduced.
type Lab struct {
	Scenario       string
	Truth, Counted uint64
	Mismatch       []string
	// Reasons and Places are those of the findings.
	Reasons, Places []string
	// Absent is why this kernel does not lose packets that way.
	Absent string
	// Err says what is not as expected.
	Err error
}

// absent is in what whydrop says of a scenario that a kernel does not have.
const absent = ": not on Linux "

// ReadLabs reads what whydrop lab run -j printed, an object a line, by the
// names of the scenarios. The rest is what was no object.
func ReadLabs(text string) (labs map[string]Lab, rest string) {
	labs = map[string]Lab{}
	for line := range strings.Lines(text) {
		var v struct {
			Type, Scenario string
			Truth, Counted uint64
			Mismatch       []string
			Diagnosis      struct {
				Findings []struct{ Reasons, Locations []string }
			}
		}
		err := json.Unmarshal([]byte(line), &v)
		if err == nil && v.Type == "matrix" { // of all together, which the lines before tell
			continue
		}
		if err != nil || v.Scenario == "" {
			rest += line
			continue
		}
		l := Lab{Scenario: v.Scenario, Truth: v.Truth, Counted: v.Counted, Mismatch: v.Mismatch}
		for _, f := range v.Diagnosis.Findings {
			l.Reasons = append(l.Reasons, f.Reasons...)
			for _, at := range f.Locations {
				symbol, _, _ := strings.Cut(at, "+")
				l.Places = append(l.Places, symbol)
			}
		}
		switch why := strings.Join(l.Mismatch, "; "); {
		case len(l.Mismatch) == 1 && strings.Contains(why, absent):
			l.Absent = why
		case l.Counted != l.Truth || l.Truth == 0 || why != "":
			l.Err = fmt.Errorf("lost %d, counted %d: %s", l.Truth, l.Counted, why)
		}
		labs[l.Scenario] = l
	}
	return labs, strings.TrimSpace(rest)
}

// NotRead is a scenario that printed no object, but something else.
func NotRead(scenario, said string, code int) Lab {
	l := Lab{Scenario: scenario}
	if said, ok := strings.CutPrefix(said, "whydrop: lab "+scenario+absent); ok {
		l.Absent = "lab " + scenario + absent + said
	} else {
		l.Err = fmt.Errorf("whydrop lab run: exit status %d and no result: %s", code, said)
	}
	return l
}

func (l Lab) cell() string {
	if l.Absent != "" {
		return "not on this kernel"
	}
	if l.Truth == 0 || l.Counted != l.Truth {
		return fmt.Sprintf("**no**: lost %d, counted %d", l.Truth, l.Counted)
	}
	if len(l.Places) == 0 {
		return "yes: no event, by counters"
	}
	why := strings.Join(l.Reasons, ", ")
	if why == "" {
		why = "no reason"
	}
	return fmt.Sprintf("yes: %s at %s", why, strings.Join(l.Places, ", "))
}

// dropwatch says how whydrop shell and dump differ from dropwatch and dwdump. No
// run finds that out, so it is kept here for every page.
//
//go:embed dropwatch.md
var dropwatch string

// Compatibility is a page that says what works on which kernel.
func Compatibility(kernels []Kernel) string {
	var b strings.Builder
	b.WriteString("# Kernels\n\nWhat works on which kernel, as a run of `make vm` found it: Debian's cloud kernels,\n" +
		"each in a virtual machine, with the same tests that `make root` runs on the host.\nThis page is generated; do not edit it. Its end is kept in `e2e/internal/results/dropwatch.md`.\n\n")
	row := func(title string, cell func(Kernel) string) {
		b.WriteString("| " + title + " |")
		for _, k := range kernels {
			b.WriteString(" " + strings.ReplaceAll(cell(k), "|", `\|`) + " |")
		}
		b.WriteByte('\n')
	}
	row("", func(k Kernel) string { return k.Suite })
	b.WriteString("|---" + strings.Repeat("|---", len(kernels)) + "|\n")
	row("kernel", func(k Kernel) string { return k.Release + " (" + k.Version + ")" })
	row("source", func(k Kernel) string {
		return strings.TrimSpace("skbdrop " + k.Doctor.Source.State + " " + k.Doctor.Source.Why)
	})
	row("eBPF program", func(k Kernel) string { return k.Doctor.Program })
	row("arguments of skb:kfree_skb", func(k Kernel) string { return fmt.Sprint(k.Doctor.Kernel.KfreeSkbArgs) })
	row("names of reasons from", func(k Kernel) string { return or(k.Doctor.Kernel.ReasonsFrom, "none") })
	row("tracepoint qdisc:qdisc_drop", func(k Kernel) string { return yesNo(k.QdiscTracepoint) })
	row("bpf_rdonly_cast", func(k Kernel) string { return yesNo(k.HaveCast) })
	for _, name := range []string{"reason", "rx_sk", "subsystems", "recursion_guard", "recursion_misses", "hardware_drops", "xdp_exception", "net_dm"} {
		title := name
		for _, k := range kernels {
			if t := k.Doctor.check(name).Title; t != "" {
				title = t
			}
		}
		row(title, func(k Kernel) string { return checkCell(k.Doctor.check(name)) })
	}
	if len(kernels) > 0 {
		for _, l := range kernels[0].Labs {
			row("lab "+l.Scenario+" counted exactly, its cause found", func(k Kernel) string {
				i := slices.IndexFunc(k.Labs, func(of Lab) bool { return of.Scenario == l.Scenario })
				if i < 0 {
					return "**did not run**"
				}
				return k.Labs[i].cell()
			})
		}
	}
	row("tests passed / failed / skipped", func(k Kernel) string {
		return fmt.Sprintf("%d / %d / %d", k.Passed, len(k.Failed), len(k.Skipped))
	})
	for _, k := range kernels {
		missing(&b, k)
	}
	return b.String() + "\n" + dropwatch
}

func checkCell(c Check) string {
	if c.State == "yes" && c.Detail != "" && c.Name == "subsystems" {
		return "yes: " + c.Detail
	}
	return c.State
}

// position is where in a test something was said.
var position = regexp.MustCompile(`(?m)^\w+\.go:\d+: `)

// missing lists what does not work on a kernel, and why.
func missing(b *strings.Builder, k Kernel) {
	fmt.Fprintf(b, "\n## %s: %s\n\n", k.Suite, k.Release)
	lines := 0
	say := func(format string, args ...any) {
		lines++
		b.WriteString("- " + strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ") + "\n")
	}
	for _, c := range k.Doctor.Checks {
		if c.State != "yes" {
			need := ""
			if c.NeededFor != "" {
				need = " (needed for " + c.NeededFor + ")"
			}
			say("%s%s: %s: %s.", c.Title, need, c.State, c.Why)
		}
	}
	for _, f := range k.Failed {
		first, _, _ := strings.Cut(position.ReplaceAllString(f.Reason(), ""), "\n")
		say("**Failed**: %s: %s", strings.TrimPrefix(f.Name, k.Suite+":"), first)
	}
	tests := map[string][]string{} // by why they were skipped
	var reasons []string
	for _, s := range k.Skipped {
		why := position.ReplaceAllString(s.Reason(), "")
		name, _, _ := strings.Cut(strings.TrimPrefix(s.Name, k.Suite+":"), "#")
		if tests[why] == nil {
			reasons = append(reasons, why)
		}
		if !slices.Contains(tests[why], name) {
			tests[why] = append(tests[why], name)
		}
	}
	for _, why := range reasons {
		say("%s. Skipped: %s.", why, strings.Join(tests[why], ", "))
	}
	if lines == 0 {
		b.WriteString("Nothing is missing.\n")
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
