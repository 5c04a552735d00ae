package results

import (
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
	Err             error
}

// ReadLab reads what whydrop lab run -j printed. The error says what is not
// as expected.
func ReadLab(scenario, text string, code int) (Lab, error) {
	var v struct {
		Truth, Counted uint64
		Mismatch       []string
		Diagnosis      struct {
			Findings []struct{ Reasons, Locations []string }
		}
	}
	l := Lab{Scenario: scenario}
	object, rest, _ := strings.Cut(text, "\n") // what went to stderr follows
	if err := json.Unmarshal([]byte(object), &v); err != nil {
		rest = text
	}
	if code != 0 || rest == text {
		l.Err = fmt.Errorf("whydrop lab run %s: exit status %d: %s", scenario, code, strings.TrimSpace(rest))
	}
	l.Truth, l.Counted, l.Mismatch = v.Truth, v.Counted, v.Mismatch
	for _, f := range v.Diagnosis.Findings {
		l.Reasons = append(l.Reasons, f.Reasons...)
		for _, at := range f.Locations {
			symbol, _, _ := strings.Cut(at, "+")
			l.Places = append(l.Places, symbol)
		}
	}
	if l.Err == nil && (l.Counted != l.Truth || l.Truth == 0 || len(l.Mismatch) > 0) {
		l.Err = fmt.Errorf("lost %d, counted %d: %s", l.Truth, l.Counted, strings.Join(l.Mismatch, "; "))
	}
	return l, l.Err
}

func (l Lab) cell() string {
	if l.Truth == 0 || l.Counted != l.Truth {
		return fmt.Sprintf("**no**: lost %d, counted %d", l.Truth, l.Counted)
	}
	why := strings.Join(l.Reasons, ", ")
	if why == "" {
		why = "no reason"
	}
	return fmt.Sprintf("yes: %s at %s", why, strings.Join(l.Places, ", "))
}

// Compatibility is a page that says what works on which kernel.
func Compatibility(kernels []Kernel) string {
	var b strings.Builder
	b.WriteString("# Kernels\n\nWhat works on which kernel, as a run of `make vm` found it: Debian's cloud kernels,\n" +
		"each in a virtual machine, with the same tests that `make root` runs on the host.\nThis page is generated; do not edit it.\n\n")
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
	for _, name := range []string{"reason", "rx_sk", "subsystems", "recursion_guard", "recursion_misses", "net_dm"} {
		title := name
		for _, k := range kernels {
			if t := k.Doctor.check(name).Title; t != "" {
				title = t
			}
		}
		row(title, func(k Kernel) string { return checkCell(k.Doctor.check(name)) })
	}
	if len(kernels) > 0 {
		for i, l := range kernels[0].Labs {
			row("lab "+l.Scenario+" counted exactly", func(k Kernel) string {
				if i >= len(k.Labs) {
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
	return b.String()
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
