package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// runner runs the commands of one level.
type runner struct {
	setting
	out io.Writer
	t   *tally
}

// command prepares a command in dir that does not read the terminal. Version
// control is not asked: it refuses a clone that belongs to another user.
func (r *runner) command(dir, name string, args ...string) *exec.Cmd {
	return r.commandContext(context.Background(), dir, name, args...)
}

// commandContext is a command that is killed when ctx ends.
func (r *runner) commandContext(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off")
	return cmd
}

// announce prints a command before it runs.
func (r *runner) announce(dir, name string, args ...string) {
	where := ""
	if rel, err := filepath.Rel(r.dir, dir); err == nil && rel != "." {
		where = " (in " + rel + ")"
	}
	words := append([]string{filepath.Base(name)}, args...)
	for i, w := range words {
		if strings.ContainsAny(w, " $|()'") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	_, _ = fmt.Fprintf(r.out, "$ %s%s\n", strings.Join(words, " "), where)
}

// check runs a command that counts as one test. It fails on a non-zero exit,
// and with quiet also when the command prints anything.
func (r *runner) check(quiet bool, dir, name string, args ...string) {
	r.announce(dir, name, args...)
	out, err := r.command(dir, name, args...).CombinedOutput()
	label := filepath.Base(name) + " " + strings.Join(args, " ")
	switch {
	case err != nil:
		r.t.fail(label, string(out)+err.Error())
	case quiet && len(bytes.TrimSpace(out)) > 0:
		r.t.fail(label, string(out))
	default:
		r.t.pass()
	}
}

// goTest runs `go test -json` with args in dir and counts what it says.
func (r *runner) goTest(c *collector, dir string, args ...string) error {
	args = append([]string{"test"}, args...)
	r.announce(dir, "go", args...)
	args = append([]string{"test", "-json"}, args[1:]...)
	return r.events(c, "go test", r.command(dir, "go", args...))
}

// events runs a command that prints the events of tests and counts them; what
// names the command in errors.
func (r *runner) events(c *collector, what string, cmd *exec.Cmd) error {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	failedBefore := r.t.failed
	readErr := c.read(stdout)
	err = cmd.Wait()
	if _, werr := r.out.Write(stderr.Bytes()); werr != nil {
		return fmt.Errorf("print: %w", werr)
	}
	if readErr != nil {
		return readErr
	}
	if err != nil && r.t.failed == failedBefore {
		// No package failed, yet the command did: it could not even begin.
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// stderrOf is what a command that failed under Output said.
func stderrOf(err error) string {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(e.Stderr)
	}
	return ""
}
