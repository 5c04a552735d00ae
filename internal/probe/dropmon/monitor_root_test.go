//go:build root

package dropmon

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/testkit"
)

var packetMode = Config{Mode: ModePacket, Truncate: 96, Queue: 2000}

// mustOpen opens a monitor with its note in dir. The test closes it.
func mustOpen(t *testing.T, o Options, dir string) *Monitor {
	t.Helper()
	m, err := openMonitor(o, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func mustConfig(t *testing.T, c *Conn, want Config) {
	t.Helper()
	if got, err := c.Config(); err != nil || got != want {
		t.Errorf("configuration is %+v, %v; want %+v", got, err, want)
	}
}

func noNote(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, noteName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("note of the monitor: %v", err)
	}
}

// TestMonitor: what it set and started is as before when it ends.
func TestMonitor(t *testing.T) {
	c := fresh(t, 0)
	before := Config{Mode: ModeSummary, Truncate: 7, Queue: 77}
	check(t, c.SetConfig(before))
	dir := filepath.Join(t.TempDir(), "whydrop")
	for _, o := range []Options{
		{Config: &packetMode, Software: true, Hardware: true},
		{Config: &packetMode, Hardware: true},
		{Software: true},
		{Config: &before, Software: true},
	} {
		m := mustOpen(t, o, dir)
		if m.Joined() != "" || len(m.Notes()) != 0 {
			t.Errorf("joined %q, notes %q", m.Joined(), m.Notes())
		}
		want := before
		if o.Config != nil {
			want = *o.Config
		}
		mustConfig(t, m.Conn(), want)
		mustRun(t, c, true)
		check(t, m.Close())
		check(t, m.Close())
		mustRun(t, c, false)
		mustConfig(t, c, before)
		noNote(t, dir)
	}
	if _, err := openMonitor(Options{}, dir); !errors.Is(err, errNothing) {
		t.Errorf("asked for nothing: %v", err)
	}
	// What somebody else has set since then stays.
	m := mustOpen(t, Options{Config: &packetMode, Software: true}, dir)
	others := Config{Mode: ModePacket, Truncate: 1, Queue: 1}
	check(t, c.Stop(true, false))
	check(t, c.SetConfig(others))
	check(t, m.Close())
	mustConfig(t, c, others)
	noNote(t, dir)
}

// TestJoined: a monitor that somebody else runs is neither stopped nor set, and
// its alerts come.
func TestJoined(t *testing.T) {
	const mark = "whydrop joined"
	other := fresh(t, 0)
	check(t, other.Join())
	theirs := Config{Mode: ModePacket, Truncate: 0, Queue: 33}
	check(t, other.SetConfig(theirs))
	self := fmt.Sprintf("(pid %d) uses the drop monitor: only listening to it, in mode packet", os.Getpid())
	for _, origins := range [][2]bool{{true, false}, {false, true}} {
		check(t, other.Start(origins[0], origins[1]))
		dir := t.TempDir()
		m := mustOpen(t, Options{Config: &Config{Queue: 5}, Software: true, Hardware: true}, dir)
		if !strings.Contains(m.Joined(), self) {
			t.Errorf("joined: %q", m.Joined())
		}
		mustConfig(t, other, theirs)
		if origins[0] {
			lose(t, 1, mark)
			receive(t, m.Conn(), func(a Alert) bool {
				return a.Packet != nil && bytes.Contains(a.Packet.Payload, []byte(mark))
			})
		}
		noNote(t, dir)
		check(t, m.Close())
		if err := other.Start(origins[0], origins[1]); !errors.Is(err, ErrRunning) {
			t.Errorf("after the joined one ended: %v", err)
		}
		mustConfig(t, other, theirs)
		check(t, other.Stop(true, true))
	}
}

// TestJoinedLeft: one that runs and that nobody listens to is joined too, and
// only Recover stops it.
func TestJoinedLeft(t *testing.T) {
	c := fresh(t, 0)
	dir := t.TempDir()
	what, err := recoverMonitor(dir)
	if err != nil || what != "nothing was left running: the drop monitor does not run" {
		t.Errorf("%q, %v", what, err)
	}
	check(t, c.SetConfig(packetMode))
	check(t, c.Start(true, true))
	m := mustOpen(t, Options{Software: true}, dir)
	if !strings.Contains(m.Joined(), "nobody listens") || !strings.Contains(m.Joined(), "--recover-dropmon") {
		t.Errorf("joined: %q", m.Joined())
	}
	// While somebody listens it is refused, with the name.
	what, err = recoverMonitor(dir)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d) listens", os.Getpid())) {
		t.Errorf("%q, %v", what, err)
	}
	check(t, m.Close())
	mustRun(t, c, true)
	what, err = recoverMonitor(dir)
	if err != nil || !strings.Contains(what, "stopped the drop monitor") || !strings.Contains(what, packetMode.String()) {
		t.Errorf("%q, %v", what, err)
	}
	mustRun(t, c, false)
	noNote(t, dir)
}

func TestPassive(t *testing.T) {
	other := fresh(t, 0)
	dir := t.TempDir()
	m := mustOpen(t, Options{Passive: true, Config: &packetMode}, dir)
	if !strings.Contains(m.Joined(), "does not run") || !strings.Contains(m.Joined(), "nobody else listens") {
		t.Errorf("%q", m.Joined())
	}
	mustRun(t, other, false)
	mustConfig(t, other, Config{Queue: 1000})
	check(t, m.Close())
	check(t, other.Join())
	check(t, other.Start(true, false))
	m = mustOpen(t, Options{Passive: true}, dir)
	if !strings.Contains(m.Joined(), fmt.Sprintf("(pid %d) listens too: only listening", os.Getpid())) {
		t.Errorf("%q", m.Joined())
	}
	check(t, m.Close())
	mustRun(t, other, true)
	noNote(t, dir)
}

// TestTwoMonitors: the second of two whydrops listens, and takes over what the
// first one left only once it is gone.
func TestTwoMonitors(t *testing.T) {
	c := fresh(t, 0)
	dir := t.TempDir()
	first := mustOpen(t, Options{Config: &packetMode, Software: true}, dir)
	second := mustOpen(t, Options{Software: true}, dir)
	if want := fmt.Sprintf("(pid %d) uses the drop monitor: only listening to it, in mode packet", os.Getpid()); !strings.Contains(second.Joined(), want) {
		t.Errorf("%q lacks %q", second.Joined(), want)
	}
	if what, err := recoverMonitor(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("%q, %v", what, err)
	}
	check(t, second.Close())
	mustRun(t, c, true)
	check(t, first.Close())
	mustRun(t, c, false)
	mustConfig(t, c, Config{Queue: 1000})
}

// asMonitor in the environment makes the test a process that monitors until it
// is killed; its value is the directory of the note.
const asMonitor = "WHYDROP_TEST_AS_MONITOR"

// kill lets another process monitor, and kills it. It returns its number.
func kill(t *testing.T, dir string) int {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), asMonitor+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	check(t, err)
	check(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err := errors.Join(err, child.Process.Kill()); err != nil || line != "monitoring\n" {
		t.Fatalf("%q, %v", line, err)
	}
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || !exit.Sys().(interface{ Signaled() bool }).Signaled() {
		t.Fatalf("the process that monitors: %v", err)
	}
	return child.Process.Pid
}

func TestKilled(t *testing.T) {
	if dir := os.Getenv(asMonitor); dir != "" {
		m, err := openMonitor(Options{Config: &packetMode, Software: true, Hardware: true}, dir)
		if err != nil || m.Joined() != "" {
			t.Fatal(err, m.Joined())
		}
		fmt.Println("monitoring")
		time.Sleep(patience)
		return
	}
	c := fresh(t, 0)
	before := Config{Mode: ModeSummary, Truncate: 5, Queue: 55}
	check(t, c.SetConfig(before))
	left := func(t *testing.T) (dir string, pid int) {
		dir = filepath.Join(t.TempDir(), "whydrop")
		pid = kill(t, dir)
		mustRun(t, c, true)
		mustConfig(t, c, packetMode)
		return dir, pid
	}
	t.Run("open", func(t *testing.T) {
		dir, pid := left(t)
		m := mustOpen(t, Options{Software: true}, dir)
		notes := strings.Join(m.Notes(), "\n")
		for _, want := range []string{"stopped the drop monitor", fmt.Sprintf("killed (pid %d,", pid), "set back its configuration", before.String()} {
			if !strings.Contains(notes, want) {
				t.Errorf("%q lacks %q", notes, want)
			}
		}
		if m.Joined() != "" || len(m.Notes()) != 1 {
			t.Errorf("joined %q, %d notes", m.Joined(), len(m.Notes()))
		}
		mustConfig(t, c, before)
		mustRun(t, c, true)
		check(t, m.Close())
		mustRun(t, c, false)
		noNote(t, dir)
	})
	t.Run("recover", func(t *testing.T) {
		dir, pid := left(t)
		what, err := recoverMonitor(dir)
		if err != nil || !strings.Contains(what, fmt.Sprintf("killed (pid %d,", pid)) || !strings.Contains(what, "set back its configuration") {
			t.Errorf("%q, %v", what, err)
		}
		mustRun(t, c, false)
		mustConfig(t, c, before)
		noNote(t, dir)
	})
	t.Run("stopped by hand", func(t *testing.T) {
		dir, _ := left(t)
		check(t, c.Stop(true, true))
		what, err := recoverMonitor(dir)
		if err != nil || !strings.HasPrefix(what, "set back the configuration") {
			t.Errorf("%q, %v", what, err)
		}
		mustConfig(t, c, before)
		noNote(t, dir)
	})
}

// TestKilledAndJoined: what a killed one left is not stopped while somebody
// listens to it, and afterwards it is.
func TestKilledAndJoined(t *testing.T) {
	c := fresh(t, 0)
	dir := filepath.Join(t.TempDir(), "whydrop")
	pid := kill(t, dir)
	other := dial(t, 0)
	check(t, other.Join())
	m := mustOpen(t, Options{Software: true}, dir)
	if want := fmt.Sprintf("killed (pid %d)", pid); !strings.Contains(m.Joined(), want) || !strings.Contains(m.Joined(), "listens to it now") {
		t.Errorf("joined: %q", m.Joined())
	}
	check(t, m.Close())
	mustRun(t, c, true)
	if what, err := recoverMonitor(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("recover: %q, %v", what, err)
	}
	check(t, other.Close())
	// The note is still there: now it is taken over.
	m = mustOpen(t, Options{Software: true}, dir)
	if m.Joined() != "" || len(m.Notes()) != 1 {
		t.Errorf("joined %q, notes %q", m.Joined(), m.Notes())
	}
	check(t, m.Close())
	mustRun(t, c, false)
	mustConfig(t, c, Config{Queue: 1000})
}

// TestModule: nothing but LoadModule loads the module.
func TestModule(t *testing.T) {
	fresh(t, 0).Close()
	loaded := func() bool {
		modules, err := os.ReadFile("/proc/modules")
		check(t, err)
		return bytes.Contains(modules, []byte("drop_monitor "))
	}
	if !loaded() {
		t.Fatal("the monitor is there, and its module is not")
	}
	check(t, unix.DeleteModule("drop_monitor", unix.O_NONBLOCK))
	t.Cleanup(func() { check(t, LoadModule()) })
	dir := t.TempDir()
	for what, err := range map[string]error{
		"dial": second(Dial(0)), "open": second(openMonitor(Options{Software: true}, dir)),
		"passive": second(openMonitor(Options{Passive: true}, dir)),
	} {
		if !errors.Is(err, ErrNoFamily) || !strings.Contains(err.Error(), "modprobe drop_monitor") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if what, err := recoverMonitor(dir); err != nil || !strings.Contains(what, "nothing was left running") || !strings.Contains(what, "not loaded") {
		t.Errorf("recover: %q, %v", what, err)
	}
	if a := (kernel.Host{}).NetDM(); a.State != kernel.StateNo {
		t.Errorf("doctor: %+v", a)
	}
	if loaded() {
		t.Fatal("the module was loaded by what must not")
	}
	m := mustOpen(t, Options{Software: true, LoadModule: true}, dir)
	if notes := strings.Join(m.Notes(), "\n"); !strings.Contains(notes, "drop_monitor was loaded") || !loaded() {
		t.Errorf("notes %q, loaded %v", notes, loaded())
	}
	if a := (kernel.Host{}).NetDM(); a.State != kernel.StateYes {
		t.Errorf("doctor: %+v", a)
	}
	check(t, m.Close())
	m = mustOpen(t, Options{Software: true, LoadModule: true}, dir)
	if len(m.Notes()) != 0 {
		t.Errorf("there was nothing to load: %q", m.Notes())
	}
	check(t, m.Close())
}

// TestNoMonitor holds on kernels that were built without: each says so.
func TestNoMonitor(t *testing.T) {
	if testkit.Configured(t, "CONFIG_NET_DROP_MONITOR") {
		return
	}
	testkit.NeedRoot(t)
	for what, err := range map[string]error{
		"dial": second(Dial(0)), "open": second(Open(Options{Software: true, LoadModule: true})), "load": LoadModule(),
	} {
		if !errors.Is(err, ErrNoFamily) || !strings.Contains(err.Error(), "CONFIG_NET_DROP_MONITOR") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if what, err := Recover(); err != nil || !strings.Contains(what, "nothing was left running") {
		t.Errorf("recover: %q, %v", what, err)
	}
}
