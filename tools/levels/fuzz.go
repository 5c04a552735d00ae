package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// fuzzer runs fuzz targets as go test does, but makes the test binary of a
// package once, not again for each of its targets.
type fuzzer struct {
	*runner
	cache     string // where go test keeps the inputs that it found
	bin       string // for the binaries
	test2json string
	free      chan struct{} // holds one for each processor in use
}

// fuzz runs each fuzz target for r.fuzzTime, as many at a time as there are
// processors.
func (r *runner) fuzz() error {
	pkgs, err := r.find()
	if err != nil {
		return err
	}
	f, err := r.newFuzzer()
	if err != nil {
		return err
	}
	var runs []*fuzzRun
	var made *fuzzRun
	for _, p := range pkgs {
		if len(p.user.fuzz) == 0 {
			continue
		}
		// One after the other: two at a time would compile what they share twice.
		made = f.start(made, func(one *runner) error { return f.build(one, p) })
		runs = append(runs, made)
		for _, name := range p.user.fuzz {
			runs = append(runs, f.start(made, func(one *runner) error {
				if _, err := os.Stat(f.binary(p)); errors.Is(err, os.ErrNotExist) {
					return nil // that it was not made is counted
				}
				return f.repeated(one, p, name)
			}))
		}
	}
	var errs []error
	for _, run := range runs {
		<-run.done
		_, err := r.out.Write(run.said.Bytes())
		errs = append(errs, err, run.err)
		r.t.add(run.t)
	}
	return errors.Join(append(errs, os.RemoveAll(f.bin))...)
}

func (r *runner) newFuzzer() (*fuzzer, error) {
	var said []string
	for _, args := range [][]string{{"env", "GOCACHE", "GOTMPDIR"}, {"tool", "-n", "test2json"}} {
		out, err := r.command(r.dir, "go", args...).Output()
		if err != nil {
			return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderrOf(err))
		}
		said = append(said, strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")...)
	}
	if len(said) != 3 {
		return nil, fmt.Errorf("go env and go tool printed %q, want three lines", said)
	}
	// Where go test runs its binaries.
	bin, err := os.MkdirTemp(said[1], "levels-")
	if err != nil {
		return nil, fmt.Errorf("make room for binaries: %w", err)
	}
	return &fuzzer{
		runner: r, cache: filepath.Join(said[0], "fuzz"), bin: bin, test2json: said[2],
		free: make(chan struct{}, runtime.NumCPU()),
	}, nil
}

// fuzzRun is what came of a fuzz target, or of making a binary.
type fuzzRun struct {
	said bytes.Buffer
	t    *tally
	err  error
	done chan struct{}
}

// start does something when another run is done and a processor is free.
func (f *fuzzer) start(after *fuzzRun, do func(one *runner) error) *fuzzRun {
	run := &fuzzRun{done: make(chan struct{})}
	run.t = &tally{level: f.t.level, out: &run.said}
	go func() {
		defer close(run.done)
		if after != nil {
			<-after.done
		}
		f.free <- struct{}{}
		run.err = do(&runner{setting: f.setting, out: &run.said, t: run.t})
		<-f.free
	}()
	return run
}

// binary is where build puts the test binary of a package.
func (f *fuzzer) binary(p pkgTests) string {
	return filepath.Join(f.bin, strings.ReplaceAll(short(p.path), "/", "-")+".test")
}

// build makes the instrumented test binary of a package. One that cannot be made
// is a failure, one that can is nothing to count.
func (f *fuzzer) build(one *runner, p pkgTests) error {
	args := []string{"test", "-c", "-vet=off", "-fuzz", ".", "-ldflags=-s -w", "-o", f.binary(p), p.path}
	one.announce(f.dir, "go", args...)
	if out, err := one.command(f.dir, "go", args...).CombinedOutput(); err != nil {
		one.t.fail(short(p.path), string(out)+err.Error())
	}
	return nil
}

// repeated runs one fuzz target. A failure at the very end of the time that found
// no input is a race in package testing (go.dev/issue/75804, mended in Go 1.27):
// that run is repeated.
func (f *fuzzer) repeated(one *runner, p pkgTests, name string) error {
	for try := 1; ; try++ {
		var said bytes.Buffer
		scratch := &tally{level: f.t.level, out: &said}
		err := f.target(&runner{setting: f.setting, out: &said, t: scratch}, p, name)
		if err == nil && scratch.failed > 0 && try < 3 && deadlineRace(said.String()) {
			_, err = fmt.Fprintf(one.out, "again: %s ended with its own deadline and found no input\n", name)
			if err == nil {
				continue
			}
		}
		_, werr := io.Copy(one.out, &said)
		one.t.add(scratch)
		return errors.Join(err, werr)
	}
}

// fuzzPatience ends a target that does not end by itself; what does not even do
// that then is killed a minute later, as by go test.
const fuzzPatience = 10 * time.Minute

// target runs one fuzz target once, in the directory of its package: an input that
// fails is written to testdata/fuzz there.
func (f *fuzzer) target(one *runner, p pkgTests, name string) error {
	events := one.command(p.dir, f.test2json, "-t", "-p", p.path)
	in, err := events.StdinPipe()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience+time.Minute)
	defer cancel()
	args := []string{
		"-test.v=test2json", "-test.paniconexit0", "-test.run=^$", "-test.fuzz=" + exactly(name),
		"-test.fuzztime=" + f.fuzzTime, "-test.parallel=1", "-test.timeout=" + fuzzPatience.String(),
		"-test.fuzzcachedir=" + filepath.Join(f.cache, filepath.FromSlash(p.path)),
	}
	one.announce(p.dir, f.binary(p), args...)
	cmd := one.commandContext(ctx, p.dir, f.binary(p), args...)
	cmd.Env = append(cmd.Env, "PWD="+p.dir)
	cmd.Stdout, cmd.Stderr = in, in
	cmd.WaitDelay = 10 * time.Second
	go func() {
		// The last line is what go test adds, and makes the result of the package:
		// a process that dies prints none.
		last := "\x16PASS\n"
		if err := cmd.Run(); err != nil {
			last = fmt.Sprintf("%v\n\x16FAIL\t%s\n", err, p.path)
		}
		_, _ = io.WriteString(in, last)
		_ = in.Close()
	}()
	return one.events(newCollector(one.t, false), name, events)
}

// deadlineRace says whether a failed fuzz run only missed its own end.
func deadlineRace(output string) bool {
	return strings.Contains(output, "context deadline exceeded") &&
		!strings.Contains(output, "Failing input written to")
}
