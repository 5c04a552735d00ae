package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// run runs a machine whose emulator is a shell script.
func run(t *testing.T, ctx context.Context, script string) (lines []string, err error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	console := filepath.Join(dir, "console")
	if err := os.WriteFile(console, []byte("Linux\r\nKernel panic\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := Machine{Vmlinuz: "k", Initrd: "i", Console: console, CPUs: 2, MB: 64}
	err = m.Run(ctx, func(s string) { lines = append(lines, s) })
	return lines, err
}

func TestRun(t *testing.T) {
	lines, err := run(t, t.Context(), `echo one; printf 'two\r\nlast'; case "$*" in *"-accel"*"-smp 2 -m 64"*) ;; *) exit 9 ;; esac`)
	if want := []string{"one", "two\r", "last"}; err != nil || !slices.Equal(lines, want) {
		t.Errorf("%q, %v, want %q", lines, err, want)
	}
}

func TestRunFails(t *testing.T) {
	lines, err := run(t, t.Context(), "echo before; echo bad kernel >&2; exit 1")
	if err == nil || !slices.Equal(lines, []string{"before"}) {
		t.Fatalf("%q, %v", lines, err)
	}
	for _, want := range []string{"exit status 1", "bad kernel", "Linux\nKernel panic"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

// TestRunEnds: a machine that hangs is killed, with all that it started.
func TestRunEnds(t *testing.T) {
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, late)
	defer cancel()
	began := time.Now()
	lines, err := run(t, ctx, "echo up; exec sleep 60")
	if !errors.Is(err, late) || time.Since(began) > 20*time.Second || len(lines) != 1 {
		t.Errorf("after %s: %q, %v", time.Since(began), lines, err)
	}
}

// TestConsole: what the kernel said last is told, and whose fault it is.
func TestConsole(t *testing.T) {
	m := Machine{Console: filepath.Join(t.TempDir(), "console")}
	more := strings.Repeat("[3] more\n", 50)
	for _, tt := range []struct {
		text, first string
		emulator    bool
	}{
		{"[1] up\r\n[2] Oops: int3: 0000 [#1] SMP\r\n" + more, "[2] Oops: int3: 0000 [#1] SMP\n[3] more", !hasKVM()},
		{"[1] up\n[2] int3: 0000 [#1] SMP\n" + more, "[2] int3", !hasKVM()},
		{"[1] up\n[2] BUG: kernel NULL pointer dereference\n[3] Oops: 0000 [#1]\n" + more, "[2] BUG", false},
		{"[1] up\n[2] Kernel panic\n", "[1] up\n[2] Kernel", false},
		{"[1] up\n" + more, "[3] more", false},
	} {
		if err := os.WriteFile(m.Console, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		tail := m.Tail()
		if !strings.HasPrefix(tail, "console: "+tt.first) || strings.Count(tail, "\n") > 52 || m.EmulatorFailed() != tt.emulator {
			t.Errorf("%q: %q, emulator %v", tt.text, tail, m.EmulatorFailed())
		}
	}
}
