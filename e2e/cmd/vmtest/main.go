// Command vmtest runs the root tests of whydrop on Debian's kernels in
// virtual machines, and says what works on which kernel.
//
// The kernels are those for clouds. A suite with the suffix +generic, as in
// -kernels trixie+generic, stands for its kernel for all machines, which has
// more drivers and is a larger download (120 MB, 520 on the disk); nothing
// runs those unless asked to.
//
// It must change nothing outside of the repository's .cache and the files it
// is told to write. A kernel that cannot be had or does not boot is a failure.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/whydrop/whydrop/e2e/internal/debian"
	"github.com/whydrop/whydrop/e2e/internal/results"
)

// suites are Debian's releases, from the oldest kernel to the newest.
var suites = []string{"bullseye", "bookworm", "trixie", "forky"}

// atOnce is how many machines run at the same time. Most jobs have one processor,
// and tests wait for something a third of their time: two machines leave a third
// of two processors idle (vmstat).
func atOnce() int { return max(2, min(runtime.NumCPU()*3/2, len(suites))) }

type options struct {
	repo   string
	suites []string
	// all are the suites that are given everything, the others what every
	// kernel is.
	all     []string
	keep, v bool
	timeout time.Duration
	json    string
	compat  string
	pattern *regexp.Regexp
}

func main() {
	var o options
	kernels := flag.String("kernels", "all", "suites of Debian, by commas: "+strings.Join(suites, ", ")+"; each may end in "+debian.Generic)
	full := flag.String("full", "all", "suites that run everything, by commas; the others run all rooms but cli, lab and testkit, and a part of the scenarios, without remedies")
	run := flag.String("run", "", "run only tests, and scenarios as lab/NAME, whose name matches this pattern")
	flag.StringVar(&o.repo, "repo", "..", "the repository")
	flag.BoolVar(&o.keep, "keep", false, "keep images and consoles in .cache/e2e/run")
	flag.BoolVar(&o.v, "v", false, "print what the machines print")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "for one machine")
	flag.StringVar(&o.json, "json", "", "write the events of go test -json to this file")
	flag.StringVar(&o.compat, "compat", "", "write what works on which kernel to this file, in Markdown")
	flag.Parse()
	err := o.set(*kernels, *full, *run)
	ok := false
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		ok, err = o.run(ctx, os.Stdout)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func (o *options) set(kernels, full, run string) (err error) {
	o.suites = suites
	if kernels != "all" {
		o.suites = strings.Split(kernels, ",")
	}
	for _, s := range o.suites {
		if !slices.Contains(suites, strings.TrimSuffix(s, debian.Generic)) {
			return fmt.Errorf("kernel %q: want all, or some of %s, perhaps with %s", s, strings.Join(suites, ","), debian.Generic)
		}
	}
	if o.all = strings.Split(full, ","); full == "all" {
		o.all = o.suites
	}
	for _, s := range o.all {
		if !slices.Contains(o.suites, s) {
			return fmt.Errorf("kernel %q, which should run everything, is none of %s", s, strings.Join(o.suites, ","))
		}
	}
	if o.repo, err = filepath.Abs(o.repo); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	o.pattern, err = regexp.Compile(run)
	return err
}

// run runs everything and says whether nothing failed.
func (o *options) run(ctx context.Context, out io.Writer) (bool, error) {
	cache := filepath.Join(o.repo, ".cache", "e2e")
	unlock, err := lock(out, cache)
	if err != nil {
		return false, err
	}
	defer unlock()
	began := time.Now()
	l, err := build(ctx, o.repo, filepath.Join(cache, "bin"), o.pattern)
	if err != nil {
		return false, err
	}
	_, _ = fmt.Fprintf(out, "built %d binaries in %.1f s\n", len(l.files), time.Since(began).Seconds())
	reports := o.machines(l, cache, out)
	each(reports, atOnce(), func(r *report) {
		r.test(ctx)
		r.printing.Lock()
		defer r.printing.Unlock()
		r.print(out)
	})
	if ctx.Err() != nil {
		return false, fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	passed, failed, skipped := 0, 0, 0
	for _, r := range reports {
		passed += r.Passed
		failed += len(r.Failed)
		skipped += len(r.Skipped)
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed, %d skipped on %d kernels in %.1f s\n",
		passed, failed, skipped, len(o.suites), time.Since(began).Seconds())
	return failed == 0, errors.Join(writeEvents(o.json, reports), writeCompat(o.compat, reports))
}

// machines are those that are to run: two for a kernel that runs everything,
// which begin first, for they take longest, and one for each of the others.
func (o *options) machines(l *load, cache string, out io.Writer) (reports []*report) {
	printing, fetching := new(sync.Mutex), map[string]*sync.Mutex{}
	add := func(suite, part string, work *load) {
		if fetching[suite] == nil {
			fetching[suite] = new(sync.Mutex)
		}
		reports = append(reports, &report{
			Suite: suite, part: part, o: o, load: work, cache: cache, out: out, printing: printing, fetching: fetching[suite],
		})
	}
	split := func(suite string, l *load) {
		parts := l.split()
		for i, part := range parts {
			name := ""
			if len(parts) > 1 {
				name = fmt.Sprintf(" %d/%d", i+1, len(parts))
			}
			add(suite, name, part)
		}
	}
	others := slices.DeleteFunc(slices.Clone(o.suites), func(suite string) bool { return slices.Contains(o.all, suite) })
	for _, suite := range o.suites {
		if slices.Contains(o.all, suite) {
			split(suite, l)
		}
	}
	for i, suite := range others {
		// So that the last one does not work alone.
		if i == len(others)-1 && len(others)%2 == 1 && len(others) > 1 {
			split(suite, l.basis())
			continue
		}
		add(suite, "", l.basis())
	}
	return reports
}

// each calls do for every report, that many at a time, in their order.
func each(reports []*report, atOnce int, do func(*report)) {
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, r := range reports {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(r)
		})
	}
	wg.Wait()
}

// lock waits until no other run uses the cache.
func lock(out io.Writer, cache string) (unlock func(), err error) {
	err = os.MkdirAll(cache, 0o755)
	var f *os.File
	if err == nil {
		f, err = os.Create(filepath.Join(cache, "lock"))
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			_, _ = fmt.Fprintln(out, "waiting for another vmtest to end")
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// writeEvents writes the events of all machines; a package is called
// suite:package there.
func writeEvents(path string, reports []*report) error {
	if path == "" {
		return nil
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	for _, r := range reports {
		for _, e := range r.events {
			if err := enc.Encode(e); err != nil {
				return fmt.Errorf("write events: %w", err)
			}
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func writeCompat(path string, reports []*report) error {
	if path == "" {
		return nil
	}
	var kernels []results.Kernel
	for _, r := range reports {
		i := slices.IndexFunc(kernels, func(k results.Kernel) bool { return k.Suite == r.Kernel.Suite })
		if i < 0 {
			kernels = append(kernels, r.Kernel)
			continue
		}
		kernels[i].Add(r.Kernel) // another part of the same
	}
	slices.SortStableFunc(kernels, func(a, b results.Kernel) int {
		return slices.Index(suites, a.Suite) - slices.Index(suites, b.Suite)
	})
	return os.WriteFile(path, []byte(results.Compatibility(kernels)), 0o644)
}
