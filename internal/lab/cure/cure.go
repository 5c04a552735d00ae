// Package cure runs the commands that a diagnosis prints, as a person would
// who pastes them into a shell, and holds the process by whose number they
// reach a namespace of the lab. It is the one place of whydrop that starts
// programs: what is tried is the very text that people are told to run.
//
// It must not run what reaches further than the lab's own namespace, unless
// the caller has checked that the whole machine may be changed, and must not
// judge what came of it.
package cure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Holder is a process that does nothing but be in a namespace, so that
// /proc/PID/ns/net leads there. It ends with this program, however that ends:
// it waits for the other end of a pipe to be closed.
type Holder struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

// ErrMissing says that this machine has not the program that is needed.
var ErrMissing = exec.ErrNotFound

// Hold starts a process in the namespace that enter runs a function in.
func Hold(enter func(func() error) error) (*Holder, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("hold network namespace: %w", err)
	}
	cmd := exec.Command("cat")
	cmd.Stdin, cmd.Dir = in, "/"
	// A signal that the terminal sends to all in the foreground is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = errors.Join(enter(cmd.Start), in.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold network namespace: %w", err), out.Close())
	}
	return &Holder{cmd, out}, nil
}

// PID is the number of the process.
func (h *Holder) PID() int { return h.cmd.Process.Pid }

// Close ends the process and waits for its end.
func (h *Holder) Close() error {
	if err := errors.Join(h.pipe.Close(), h.cmd.Wait()); err != nil {
		return fmt.Errorf("end the process that held the network namespace: %w", err)
	}
	return nil
}

// Result is what came of a command.
type Result struct {
	// Output is what it printed, to both of its outputs, at most 4 KiB.
	Output string
	// Code is its exit status; -1 where a signal ended it.
	Code int
}

const (
	// patience is how long a command may take. Commands of remedies take
	// milliseconds, in an emulated machine a second.
	patience = 20 * time.Second
	maxOut   = 4 << 10
)

// Run has sh run a command, as it is printed. The error says that it could not
// be run, or did not end in time; a program that failed is in Result.Code.
func Run(ctx context.Context, command string) (r Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "whydrop-lab-")
	if err != nil {
		return r, fmt.Errorf("run %q: %w", command, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	out := &limited{room: maxOut}
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	// nstat keeps what it read in a file, which is not the user's then.
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL=C",
		"NSTAT_HISTORY="+dir+"/nstat")
	// What the shell has started goes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	r = Result{Output: strings.TrimSpace(out.b.String()), Code: -1}
	if cmd.ProcessState != nil {
		r.Code = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("run %q: %w", command, context.Cause(ctx))
	case err != nil && !errors.As(err, &exit):
		return r, fmt.Errorf("run %q: %w", command, err)
	}
	return r, nil
}

// limited keeps the first bytes that are written to it.
type limited struct {
	b    strings.Builder
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	some := p[:min(len(p), l.room)]
	l.room -= len(some)
	l.b.Write(some)
	return len(p), nil
}
