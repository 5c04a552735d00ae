//go:build root

package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/testkit"
)

// again fails the test if the words are not printed n times within a minute.
func (c *console) again(t *testing.T, words string, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); strings.Count(c.String(), words) < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not printed %d times within a minute: %q\n%s", n, words, c)
		}
	}
}

// noPort is where UDP datagrams to no socket are dropped, in a line of a summary,
// before which the terminal may have shown a key.
var noPort = regexp.MustCompile(`(?m)^(?:\^C)?(\d+) drops at (?:__udp4_lib_rcv|udp_rcv)\+[0-9a-f]+ \(0x[0-9a-f]{16}\) \[software\]\r?$`)

// dropped adds up such lines.
func dropped(t *testing.T, said string) (sum int) {
	t.Helper()
	for _, m := range noPort.FindAllStringSubmatch(said, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestShellOnATerminal is what a person does with dropwatch, on whatever this
// host has: start, Ctrl-C, once more by the history, exit.
func TestShellOnATerminal(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "udp-noport")
	keyboard, terminal := testkit.PTY(t, false)
	c := command(t, "-l", "kas")
	c.Args[0] = "/usr/bin/dropwatch" // which makes it the shell
	c.Stdin, c.Stdout, c.Stderr = terminal, terminal, terminal
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var out console
	go func() { _, _ = io.Copy(&out, keyboard) }() // until it is closed
	types := func(keys string) {
		t.Helper()
		if _, err := io.WriteString(keyboard, keys); err != nil {
			t.Fatal(err)
		}
	}
	for n, keys := range []string{"start\r", "\x1b[A\r"} {
		out.again(t, "dropwatch> ", n+1)
		types(keys)
		out.again(t, "Issue Ctrl-C to stop monitoring", n+1)
		if _, err := setup.Provoke(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
		types("\x03")
		out.again(t, "Got a stop message\r\n", n+1)
		if got, want := dropped(t, out.String()), 7*(n+1); got != want {
			t.Errorf("%d drops, want %d", got, want)
		}
	}
	out.again(t, "dropwatch> ", 3)
	types("exit\r")
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	out.await(t, "Shutting down ...\r\n")
	gone(t)
	if t.Failed() {
		t.Log(out.String())
	}
}

// piped is a shell that reads from a pipe.
type piped struct {
	*exec.Cmd
	in       io.WriteCloser
	out, err console
}

func pipeShell(t *testing.T, args ...string) *piped {
	t.Helper()
	return pipeTo(t, command(t, append([]string{"shell"}, args...)...))
}

func pipeTo(t *testing.T, c *exec.Cmd) *piped {
	t.Helper()
	p := &piped{Cmd: c}
	p.Stdout, p.Stderr = &p.out, &p.err
	var err error
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

func (p *piped) say(t *testing.T, lines string) {
	t.Helper()
	if _, err := io.WriteString(p.in, lines); err != nil {
		t.Fatal(err)
	}
}

// stop presses Ctrl-C, says exit and waits for the end.
func (p *piped) stop(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	p.out.await(t, "Got a stop message\n")
	p.say(t, "show\nexit\n")
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s%s", err, &p.out, &p.err)
	}
}

// TestShellSystemMap names functions by a file.
func TestShellSystemMap(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "udp-noport")
	kallsyms, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	var kernel bytes.Buffer // without modules, and the programs of [bpf]
	for line := range bytes.Lines(kallsyms) {
		if !bytes.Contains(line, []byte("[")) {
			kernel.Write(line)
		}
	}
	file := filepath.Join(t.TempDir(), "System.map")
	if err := os.WriteFile(file, kernel.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p := pipeShell(t, "-l", file)
	p.say(t, "start\n")
	p.out.await(t, "Issue Ctrl-C to stop monitoring\n")
	if _, err := setup.Provoke(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	p.stop(t)
	if got := dropped(t, p.out.String()); got != 7 || !strings.HasPrefix(p.out.String(), "Initializing symbols of "+file+"\n") {
		t.Errorf("%d drops, want 7\n%s%s", got, &p.out, &p.err)
	}
}

// TestShellReadsNoSymbols: who does not ask for names does not have
// /proc/kallsyms read, not even opened: here that would wait for ever.
func TestShellReadsNoSymbols(t *testing.T) {
	testkit.NeedRoot(t)
	fifo := filepath.Join(t.TempDir(), "kallsyms")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := pipeTo(t, inMounts(t, "mount --bind "+fifo+" /proc/kallsyms", "shell"))
	p.say(t, "stats\nstart\n")
	p.out.await(t, "Issue Ctrl-C to stop monitoring\n")
	p.stop(t)

	// Who asks and gets none is told, and it is a failure.
	p = pipeTo(t, inMounts(t, "mount --bind /dev/null /proc/kallsyms", "shell", "-l", "kas"))
	p.say(t, "exit\n")
	_ = p.Wait()
	if code := p.ProcessState.ExitCode(); code != exitPartial || !strings.Contains(p.err.String(), "addresses are not named") {
		t.Errorf("exit status %d\n%s%s", code, &p.out, &p.err)
	}
}

// TestShellElsewhere: in another network namespace eBPF watches, and without
// rights nobody does.
func TestShellElsewhere(t *testing.T) {
	testkit.NeedRoot(t)
	var r result
	testkit.InNetNS(t, func(*netlab.Namespace) { r = here(t, "shell") })
	if r.code != exitOK || r.out != "Initializing null lookup method\ndropwatch> Terminating dropwatch...\nShutting down ...\n" ||
		!strings.Contains(r.err, "initial network namespace") || !strings.Contains(r.err, "watching with eBPF instead") {
		t.Errorf("exit status %d\n%s%s", r.code, r.out, r.err)
	}

	c := asNobody(t, nil, "shell")
	c.Stdin = strings.NewReader("start\n")
	r = finish(t, c)
	code, out := exitUnavailable, "Unable to find NET_DM family, dropwatch can't work\n"
	if testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		code, out = exitPartial, "\nFailed activation request, error: Operation not permitted\n"
	}
	if r.code != code || !strings.Contains(r.out, out) || !strings.Contains(r.err, "CAP_") {
		t.Errorf("without rights: exit status %d\n%s%s", r.code, r.out, r.err)
	}
}

func dropmonConfig(t *testing.T) dropmon.Config {
	t.Helper()
	c, err := dropmon.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestShellKilled: what a killed shell left, the next one puts back and says so.
func TestShellKilled(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	before := dropmonConfig(t)
	killed := pipeShell(t)
	killed.say(t, "set alertmode packet\nset trunc 77\nstart\n")
	killed.out.await(t, "Issue Ctrl-C to stop monitoring\n")
	if during := dropmonConfig(t); during.Truncate != 77 || during.Mode != dropmon.ModePacket {
		t.Errorf("while it monitors the configuration is %+v", during)
	}
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()

	next := pipeShell(t)
	next.say(t, "start\n")
	next.out.await(t, "Issue Ctrl-C to stop monitoring\n")
	next.stop(t)
	if want := fmt.Sprintf("killed (pid %d", killed.Process.Pid); !strings.Contains(next.err.String(), want) {
		t.Errorf("no %q in\n%s", want, &next.err)
	}
	if after := dropmonConfig(t); after != before {
		t.Errorf("the configuration was %+v, is %+v", before, after)
	}
}

// TestShellEnds: a signal that ends programs stops the monitor, and so does a
// pipe that nobody reads any more.
func TestShellEnds(t *testing.T) {
	testkit.NeedRoot(t)
	p := pipeShell(t)
	p.say(t, "start\n")
	p.out.await(t, "Issue Ctrl-C to stop monitoring\n")
	if err := p.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil || !strings.HasSuffix(p.out.String(), "Got a stop message\nShutting down ...\n") {
		t.Errorf("%v\n%s%s", err, &p.out, &p.err)
	}
	gone(t)

	c := command(t, "shell")
	c.Stdin = strings.NewReader("start\nhelp\n")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	var said strings.Builder
	for b := make([]byte, 512); !strings.Contains(said.String(), "Issue Ctrl-C"); {
		n, err := out.Read(b)
		said.Write(b[:n])
		if err != nil {
			t.Fatalf("%v\n%s", err, said.String())
		}
	}
	out.Close()
	if err := c.Process.Signal(unix.SIGINT); err != nil { // it has something to say now
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != exitPartial {
		t.Errorf("exit status %d", code)
	}
	gone(t)
	if testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		if r := here(t, "doctor", "--recover-dropmon"); !strings.HasPrefix(r.out, "nothing was left running") {
			t.Errorf("something was left: %s%s", r.out, r.err)
		}
	}
}
