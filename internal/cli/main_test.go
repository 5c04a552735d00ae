package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// asWhydrop in the environment makes the test binary behave as whydrop, so
// that a test can run it as a process: signals, capabilities, exit codes.
const asWhydrop = "WHYDROP_TEST_AS_WHYDROP"

func TestMain(m *testing.M) {
	if os.Getenv(asWhydrop) != "" {
		os.Exit(Main(Args(os.Args), os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// result is what a finished run of whydrop left.
type result struct {
	out, err string
	code     int
}

// patience bounds every process: one that hangs is killed, and what it has
// said so far is looked at.
const patience = 3 * time.Minute

// bounded is a context for a process.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// command makes a whydrop process that is not started yet.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(bounded(t), self, args...)
	c.Env = append(os.Environ(), asWhydrop+"=1")
	return c
}

// finish runs c to its end.
func finish(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", strings.Join(c.Args[1:], " "), err)
	}
	return result{out.String(), errOut.String(), c.ProcessState.ExitCode()}
}

// here runs whydrop in this process, which reads the knowledge once for all
// such runs. It suits commands that neither wait nor look at the host.
func here(t *testing.T, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := Main(args, strings.NewReader(""), &out, &errOut)
	return result{out.String(), errOut.String(), code}
}

func run(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, command(t, args...))
}
