package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// modules are the directories of the Go modules whose code is checked.
var modules = []string{".", "tools", "e2e"}

const archtest = "internal/archtest"

// lint checks formatting and code, then the rules of internal/archtest.
func (r *runner) lint() error {
	bin := filepath.Join(r.dir, ".cache", "bin")
	r.check(true, r.dir, filepath.Join(bin, "gofumpt"), "-l", ".")
	for _, m := range modules {
		dir := filepath.Join(r.dir, m)
		tags := []string{""}
		if m == "." {
			tags = []string{"", "root"}
		}
		for _, tag := range tags {
			r.check(false, dir, "go", withTag("vet", tag)...)
			r.check(false, dir, filepath.Join(bin, "staticcheck"), withTag("", tag)...)
		}
	}
	return r.goTest(newCollector(r.t, false), r.dir, "-vet=off", "-count=1", "./"+archtest)
}

// withTag puts together the arguments [verb] [-tags tag] ./...
func withTag(verb, tag string) []string {
	var args []string
	if verb != "" {
		args = append(args, verb)
	}
	if tag != "" {
		args = append(args, "-tags", tag)
	}
	return append(args, "./...")
}

// unit runs every test that needs no root, except those of lint.
func (r *runner) unit() error {
	for _, m := range modules {
		// Of what these short processes take, a third was the collection of garbage.
		if err := r.unitModule(m, newCollector(r.t, false), "-exec", "env GOGC=400"); err != nil {
			return err
		}
	}
	return nil
}

// race runs the tests of the main module under the race detector, which needs
// a C compiler.
func (r *runner) race() error {
	probe := r.command(r.dir, "go", "build", "-race", "-o", os.DevNull, "runtime/cgo")
	if out, err := probe.CombinedOutput(); err != nil {
		why, _, _ := strings.Cut(string(bytes.TrimSpace(out)), "\n")
		r.t.skip("race detector", "needs cgo and a C compiler (apt-get install gcc libc6-dev): "+why)
		return nil
	}
	// Otherwise each process that a test starts sleeps a second at its end
	// (go.dev/doc/articles/race_detector).
	if err := os.Setenv("GORACE", "atexit_sleep_ms=20 "+os.Getenv("GORACE")); err != nil {
		return fmt.Errorf("set GORACE: %w", err)
	}
	return r.unitModule(".", newCollector(r.t, true), "-race", "-short")
}

func (r *runner) unitModule(module string, c *collector, flags ...string) error {
	dir := filepath.Join(r.dir, module)
	args := append([]string{"-vet=off", "-count=1", "-timeout", "5m"}, flags...)
	if module != "." {
		return r.goTest(c, dir, append(args, "./...")...)
	}
	out, err := r.command(dir, "go", "list", "./...").Output()
	if err != nil {
		return fmt.Errorf("list packages: %w\n%s", err, stderrOf(err))
	}
	for _, p := range strings.Fields(string(out)) {
		if p = short(p); p != archtest {
			args = append(args, "./"+p)
		}
	}
	return r.goTest(c, dir, args...)
}

// root runs the tests declared in *_root_test.go as root, one package after
// the other. What they share with the unit tests is not run again.
func (r *runner) root() error {
	pkgs, err := r.find()
	if err != nil {
		return err
	}
	exe, err := r.asRoot()
	if err != nil {
		return err
	}
	for _, p := range pkgs {
		if len(p.root.tests) == 0 {
			continue
		}
		args := append([]string{"-vet=off", "-tags", "root", "-p", "1", "-count=1", "-timeout", "10m"}, exe...)
		args = append(args, "-run", exactly(p.root.tests...), p.path)
		if err := r.goTest(newCollector(r.t, false), r.dir, args...); err != nil {
			return err
		}
	}
	return nil
}

// bench runs every benchmark for one iteration, those in *_root_test.go as
// root.
func (r *runner) bench() error {
	pkgs, err := r.find()
	if err != nil {
		return err
	}
	common := []string{"-vet=off", "-run", "^$", "-benchtime", "1x", "-p", "1", "-timeout", "10m"}
	for _, p := range pkgs {
		if len(p.user.bench) == 0 {
			continue
		}
		args := append(slices.Clone(common), "-bench", exactly(p.user.bench...), p.path)
		if err := r.goTest(newCollector(r.t, false), r.dir, args...); err != nil {
			return err
		}
	}
	for _, p := range pkgs {
		if len(p.root.bench) == 0 {
			continue
		}
		exe, err := r.asRoot()
		if err != nil {
			return err
		}
		args := append(slices.Clone(common), "-tags", "root")
		args = append(append(args, exe...), "-bench", exactly(p.root.bench...), p.path)
		if err := r.goTest(newCollector(r.t, false), r.dir, args...); err != nil {
			return err
		}
	}
	return nil
}

// asRoot returns the flags of go test that run a test binary as root: none
// for root, sudo otherwise. The tests are still built as this user, so that
// the build cache stays theirs.
func (r *runner) asRoot() ([]string, error) {
	if os.Geteuid() == 0 {
		return nil, nil
	}
	const ask = "these tests need root: run make as root, or as a user who may sudo"
	if _, err := exec.LookPath("sudo"); err != nil {
		return nil, fmt.Errorf("%s: %w", ask, err)
	}
	path := "PATH=" + os.Getenv("PATH")
	try := []string{"-E", "env", path, "true"}
	if !canAsk() {
		try = append([]string{"-n"}, try...)
	}
	if out, err := r.command(r.dir, "sudo", try...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: sudo -E: %w\n%s", ask, err, out)
	}
	return []string{"-exec", "sudo -n -E env '" + path + "'"}, nil
}

// canAsk says whether somebody is there to type sudo's password.
func canAsk() bool {
	if os.Getenv("CI") != "" {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = tty.Close()
	return true
}

// soakTime is half of how long soak watches each of its two hosts: ten minutes
// of watching in all.
const soakTime = "2m30s"

// soak watches busy healthy hosts on this kernel for minutes. It mostly waits.
func (r *runner) soak() error {
	exe, err := r.asRoot()
	if err != nil {
		return err
	}
	args := append([]string{"-vet=off", "-tags", "root", "-count=1", "-v", "-timeout", "20m"}, exe...)
	args = append(args, "-run", exactly("TestBusyHost"), "./internal/cli", "-args", "-busy", soakTime, "-hosts", "2")
	return r.goTest(newCollector(r.t, false), r.dir, args...)
}

// vm boots other kernels by e2e/cmd/vmtest, which says what happened in the
// events of go test. It gives way to the tests on this kernel, of which some
// measure time.
func (r *runner) vm() error {
	events := filepath.Join(r.dir, ".cache", "e2e", "events.json")
	if err := os.Remove(events); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove events of an earlier run: %w", err)
	}
	dir := filepath.Join(r.dir, "e2e")
	args := []string{"-n", "10", "go", "run", "./cmd/vmtest", "-full", r.full, "-json", events, "-compat", filepath.Join(r.dir, ".cache", "e2e", "compatibility.md")}
	r.announce(dir, "nice", args...)
	cmd := r.command(dir, "nice", args...)
	cmd.Stdout, cmd.Stderr = r.out, r.out
	runErr := cmd.Run()
	f, err := os.Open(events)
	if err != nil {
		return errors.Join(runErr, fmt.Errorf("read events of vmtest: %w", err))
	}
	defer f.Close()
	failedBefore := r.t.failed
	if err := newCollector(r.t, false).read(f); err != nil {
		return err
	}
	if runErr != nil && r.t.failed == failedBefore {
		return fmt.Errorf("vmtest: %w", runErr)
	}
	return nil
}
