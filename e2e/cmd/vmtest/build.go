package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/whydrop/whydrop/e2e/internal/guest"
)

const module = "github.com/whydrop/whydrop"

// load is what runs in every machine.
type load struct {
	files guest.Files
	jobs  []guest.Job
	// scenarios are those of the job lab.
	scenarios []string
}

// Names of jobs that are no test binary.
const (
	jobDoctor = "doctor"
	jobCast   = "cast"
	jobQdisc  = "qdisc_drop"
	jobLab    = "lab"
)

// testTimeout bounds each test binary in the machine, so that one that hangs
// says where and the others still run.
const testTimeout = "10m"

// needsProcessors is the room whose tests are of processors that meet: one
// interrupts another, each counts for itself.
const needsProcessors = "internal/probe/skbdrop"

// labTimeout bounds the job lab likewise, in seconds.
const labTimeout = "900"

// command prepares a go command in the main module. The binaries are static,
// because the machines have no libraries.
func command(ctx context.Context, repo, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	return cmd
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, &said)
	}
	return out, nil
}

// build makes whydrop and the binaries of all root tests of the repository,
// below dir. Only tests and scenarios that match the pattern run.
func build(ctx context.Context, repo, dir string, pattern *regexp.Regexp) (*load, error) {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, fmt.Errorf("make room for binaries: %w", err)
	}
	whydrop := filepath.Join(dir, "whydrop")
	l := &load{files: guest.Files{"/bin/whydrop": whydrop}}
	small := []string{"-trimpath", "-ldflags=-s -w"}
	if _, err := output(command(ctx, repo, "go", append(append([]string{"build", "-o", whydrop}, small...), "./cmd/whydrop")...)); err != nil {
		return nil, err
	}
	if err := l.addWhydrop(ctx, whydrop, pattern); err != nil {
		return nil, err
	}
	pkgs, err := rootTests(ctx, repo, pattern)
	if err != nil {
		return nil, err
	}
	args := append([]string{"test", "-c", "-vet=off", "-tags", "root", "-o", dir + "/"}, small...)
	for _, p := range pkgs {
		args = append(args, p.ImportPath)
		name := filepath.Base(p.ImportPath) + ".test"
		short := strings.TrimPrefix(p.ImportPath, module+"/")
		home := "/src/" + short // has the package's testdata, as with go test
		l.files["/bin/"+name] = filepath.Join(dir, name)
		l.files[home+"/doc"] = filepath.Join(p.Dir, p.GoFiles[0])
		if data := filepath.Join(p.Dir, "testdata"); isDir(data) {
			l.files[home+"/testdata"] = data
		}
		l.jobs = append(l.jobs, guest.Job{Name: short, Dir: home, Processors: short == needsProcessors, Args: []string{
			"/bin/" + name, "-test.v=test2json", "-test.short", "-test.paniconexit0",
			"-test.timeout=" + testTimeout, "-test.run=^(" + strings.Join(p.tests, "|") + ")$",
		}})
	}
	if len(pkgs) == 0 {
		return l, nil
	}
	_, err = output(command(ctx, repo, "go", args...))
	return l, err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// addWhydrop adds what whydrop itself says in the machine, and the losses that
// it can reproduce whose names match the pattern behind lab/.
func (l *load) addWhydrop(ctx context.Context, whydrop string, pattern *regexp.Regexp) error {
	out, err := output(exec.CommandContext(ctx, whydrop, "lab", "list", "-j"))
	if err != nil {
		return err
	}
	var list struct{ Scenarios []struct{ Name string } }
	if err := json.Unmarshal(out, &list); err != nil {
		return fmt.Errorf("list of lab scenarios: %w", err)
	}
	l.jobs = append(l.jobs,
		guest.Job{Name: jobDoctor, Dir: "/", Args: []string{"whydrop", "doctor", "-j"}},
		guest.Job{Name: jobCast, Dir: "/", Args: []string{"grep", "-qw", "bpf_rdonly_cast", "/proc/kallsyms"}},
		guest.Job{Name: jobQdisc, Dir: "/", Args: []string{"test", "-d", "/sys/kernel/tracing/events/qdisc/qdisc_drop"}},
	)
	for _, s := range list.Scenarios {
		if pattern.MatchString(jobLab + "/" + s.Name) {
			l.scenarios = append(l.scenarios, s.Name)
		}
	}
	if len(l.scenarios) > 0 {
		l.jobs = append(l.jobs, labJob(l.scenarios))
	}
	return nil
}

// pkg is a package that has root tests, as go list describes it.
type pkg struct {
	ImportPath, Dir                    string
	GoFiles, TestGoFiles, XTestGoFiles []string
	tests                              []string
}

var testFunc = regexp.MustCompile(`(?m)^func (Test(?:[^a-z(]\w*)?)\(\w+ \*testing\.T\)`)

// rootTests finds the tests declared in files *_root_test.go. Those have the
// build tag root, as internal/archtest sees to.
func rootTests(ctx context.Context, repo string, pattern *regexp.Regexp) ([]pkg, error) {
	out, err := output(command(ctx, repo, "go", "list", "-tags", "root", "-json=ImportPath,Dir,GoFiles,TestGoFiles,XTestGoFiles", "./..."))
	if err != nil {
		return nil, err
	}
	var pkgs []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode the list of packages: %w", err)
		}
		for _, name := range append(p.TestGoFiles, p.XTestGoFiles...) {
			if !strings.HasSuffix(name, "_root_test.go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, fmt.Errorf("read tests: %w", err)
			}
			for _, m := range testFunc.FindAllSubmatch(text, -1) {
				if f := string(m[1]); f != "TestMain" && pattern.MatchString(f) {
					p.tests = append(p.tests, f)
				}
			}
		}
		if len(p.tests) > 0 {
			pkgs = append(pkgs, p)
		}
	}
}
