package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/whydrop/whydrop/e2e/internal/debian"
	"github.com/whydrop/whydrop/e2e/internal/guest"
	"github.com/whydrop/whydrop/e2e/internal/machine"
	"github.com/whydrop/whydrop/e2e/internal/results"
)

// report is a kernel under test, and what came of it.
type report struct {
	results.Kernel
	Suite string
	// part is which of several machines of the suite this is, such as " 1/2";
	// fetching is for one of them at a time.
	part     string
	fetching *sync.Mutex
	o        *options
	load     *load
	cache    string
	out      io.Writer
	printing *sync.Mutex

	events []results.Event
	notes  []string
	// What arrives from the machine.
	started   time.Time
	up, off   bool
	machine   []string // what init complained about
	job       int      // that runs now, or -1
	begun     time.Time
	jobOutput strings.Builder
	done      map[int]bool
}

// errEmulator says that neither the kernel nor a test is to blame.
var errEmulator = errors.New("the emulator ran code that the kernel had replaced")

// test brings the kernel, boots it, and counts what its jobs print. It begins
// once more where the emulator went wrong.
func (r *report) test(ctx context.Context) {
	began, fresh := time.Now(), *r
	err := errEmulator
	for tries := 0; tries < 2 && errors.Is(err, errEmulator); tries++ {
		if tries > 0 {
			*r = fresh
			r.notes = []string{"begun again: " + errEmulator.Error()}
		}
		r.done, r.job, r.started = map[int]bool{}, -1, time.Now()
		err = r.boot(ctx)
	}
	r.finish(ctx, err)
	r.Seconds = time.Since(began).Seconds()
}

// finish counts what is left when the machine has ended.
func (r *report) finish(ctx context.Context, err error) {
	if r.job >= 0 { // was running when the machine ended
		r.end(ctx, r.job, -1)
	}
	var idle []string
	for i, j := range r.load.jobs {
		if !r.done[i] {
			idle = append(idle, j.Name)
		}
	}
	if len(idle) > 0 {
		err = errors.Join(err, fmt.Errorf("did not run: %s", strings.Join(idle, ", ")))
	}
	for _, m := range r.machine {
		err = errors.Join(err, errors.New(m))
	}
	r.begun = r.started // what the machine took
	r.verdict(ctx, "boot", err)
}

func (r *report) boot(ctx context.Context) error {
	r.fetching.Lock()
	k, err := debian.Fetch(ctx, r.cache, r.Suite)
	r.fetching.Unlock()
	if err != nil {
		return err
	}
	r.Kernel.Suite, r.Version, r.Release = k.Suite, k.Version, k.Release
	if k.Stale != "" {
		r.notes = append(r.notes, "kernel from the cache, perhaps not the newest: "+k.Stale)
	}
	dir := filepath.Join(r.cache, "run")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make room for images: %w", err)
	}
	m := machine.Machine{
		Vmlinuz: k.Vmlinuz, CPUs: 2, MB: 1024,
		Initrd:  filepath.Join(dir, r.file()+".cpio"),
		Console: filepath.Join(dir, r.file()+".console"),
	}
	if !r.o.keep {
		defer func() { _, _ = os.Remove(m.Initrd), os.Remove(m.Console) }()
	}
	files := maps.Clone(r.load.files)
	files["/boot/config-"+k.Release] = k.Config
	if err := guest.Build(ctx, m.Initrd, k.Modules, k.Builtin, files, r.load.jobs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.o.timeout, fmt.Errorf("not done within %s", r.o.timeout))
	defer cancel()
	r.started = time.Now()
	err = m.Run(ctx, func(s string) { r.line(ctx, s) })
	if err == nil && !r.off { // a kernel that panics ends the machine, too
		err = fmt.Errorf("the machine ended before its jobs did\n%s", m.Tail())
		if m.EmulatorFailed() {
			err = fmt.Errorf("%w: %w", errEmulator, err)
		}
	}
	return err
}

// file is how the machine's files are called.
func (r *report) file() string {
	return r.Suite + strings.NewReplacer(" ", "-", "/", "-of-").Replace(r.part)
}

// line takes a line from the machine.
func (r *report) line(ctx context.Context, s string) {
	if r.o.v {
		r.printing.Lock()
		_, _ = fmt.Fprintf(r.out, "%s%s %6.1f  %s\n", r.Suite, r.part, time.Since(r.started).Seconds(), s)
		r.printing.Unlock()
	}
	switch l := guest.Parse(s); l.Kind {
	case "up":
		r.up, r.Boot = true, time.Since(r.started).Seconds()
		if l.Text != r.Release {
			r.machine = append(r.machine, fmt.Sprintf("booted %s instead of %s", l.Text, r.Release))
		}
	case "begin":
		r.job, r.begun = l.Job, time.Now()
		r.jobOutput.Reset()
	case "end":
		r.end(ctx, l.Job, l.Code)
	case "error":
		r.machine = append(r.machine, l.Text)
	case "off":
		r.off = true
	default:
		if r.job >= 0 {
			r.jobOutput.WriteString(s + "\n")
		}
	}
}

// end takes what a job has printed.
func (r *report) end(ctx context.Context, number, code int) {
	r.job = -1
	if number >= len(r.load.jobs) || r.done[number] {
		r.machine = append(r.machine, fmt.Sprintf("job %d ended, which was not running", number))
		return
	}
	r.done[number] = true
	text := r.jobOutput.String()
	switch name := r.load.jobs[number].Name; {
	case name == jobDoctor:
		err := json.Unmarshal([]byte(text), &r.Doctor)
		if code != 0 || err != nil {
			err = fmt.Errorf("whydrop doctor: exit status %d, %w\n%s", code, err, text)
		}
		r.verdict(ctx, name, err)
	case name == jobCast:
		r.HaveCast = code == 0
	case name == jobQdisc:
		r.QdiscTracepoint = code == 0
	case name == jobLab:
		r.labs(ctx, text, code)
	default:
		r.count(ctx, name, text, code)
	}
}

// labs takes what the lab has printed, and counts each scenario.
func (r *report) labs(ctx context.Context, text string, code int) {
	labs, rest := results.ReadLabs(text)
	asExpected := true
	for _, name := range r.load.scenarios {
		l, ok := labs[name]
		if !ok {
			l = results.NotRead(name, rest, code)
		}
		asExpected = asExpected && l.Err == nil && l.Absent == ""
		r.Labs = append(r.Labs, l)
		if l.Absent != "" {
			r.tell(ctx, "whydrop", jobLab+"/"+name, l.Absent, "SKIP", "PASS")
		} else {
			r.verdict(ctx, jobLab+"/"+name, l.Err)
		}
		r.begun = time.Now() // the first has the time of all
	}
	if code != 0 && asExpected {
		r.verdict(ctx, jobLab, fmt.Errorf("exit status %d although all is as expected: %s", code, rest))
	}
}

// verdict counts something that is no test binary as if it were a test.
func (r *report) verdict(ctx context.Context, name string, err error) {
	pkg := "machine"
	if name != "boot" {
		pkg = "whydrop"
	}
	if err != nil {
		r.tell(ctx, pkg, name, err.Error(), "FAIL", "FAIL")
	} else {
		r.tell(ctx, pkg, name, "", "PASS", "PASS")
	}
}

// tell counts a test of which nothing but its end is known.
func (r *report) tell(ctx context.Context, pkg, name, said, end, all string) {
	r.count(ctx, pkg, fmt.Sprintf("\x16=== RUN   %s\n%s\n\x16--- %s: %s (0.00s)\n\x16%s\n", name, said, end, name, all), 0)
}

func (r *report) count(ctx context.Context, pkg, text string, code int) {
	// Also after an interrupt, so that what ran is counted.
	events, err := results.Convert(context.WithoutCancel(ctx), r.Suite+":"+pkg, text, code, time.Since(r.begun).Seconds())
	if err != nil {
		r.Failed = append(r.Failed, results.Result{Name: r.Suite + ":" + pkg, Output: err.Error()})
	}
	r.events = append(r.events, events...)
	r.Count(events)
}

func (r *report) print(out io.Writer) {
	boot := "did not boot"
	if r.up {
		boot = fmt.Sprintf("up after %.1f s", r.Boot)
	}
	_, _ = fmt.Fprintf(out, "\n=== %s%s: %s, %s; %d passed, %d failed, %d skipped in %.1f s\n",
		r.Suite, r.part, r.Release, boot, r.Passed, len(r.Failed), len(r.Skipped), r.Seconds)
	for _, n := range r.notes {
		_, _ = fmt.Fprintf(out, "NOTE %s%s: %s\n", r.Suite, r.part, n)
	}
	r.Print(out)
}
