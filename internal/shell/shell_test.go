package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/whydrop/whydrop/internal/testkit"
)

// said is what a conversation left.
type said struct {
	out, err string
	result   error
}

// talk has a conversation over a pipe, as scripts do.
func talk(t *testing.T, f *fake, in string) said {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer w.Close()
		_, _ = w.WriteString(in)
	}()
	var out, errOut bytes.Buffer
	o := Options{
		In: r, Out: &out, Err: &errOut, Backend: f, Interrupts: f.interrupts, Zone: time.UTC, Method: "null lookup method",
	}
	if f.names != nil {
		o.Names, o.Method = f.names, "kallsyms db"
	}
	result := make(chan error, 1)
	go func() { result <- Run(t.Context(), o) }()
	select {
	case err := <-result:
		if f.running {
			t.Error("it still monitors after the end")
		}
		return said{out.String(), errOut.String(), err}
	case <-time.After(time.Minute):
		t.Fatal("the conversation has not ended after a minute")
		return said{}
	}
}

// part is a file of an archive.
func part(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

// TestScripts has the conversations of testdata/scripts. Each file holds what
// is typed, what the backend does, and, written by -update, what came of it.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/scripts/*.txtar")
	if err != nil || len(scripts) < 10 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f := newFake(t, part(a, "backend"))
			got := talk(t, f, part(a, "in"))
			result := "ok"
			var failed *FailedError
			if errors.As(got.result, &failed) {
				result = "failed: " + failed.Error()
			} else if got.result != nil {
				t.Error(got.result)
			}
			testkit.Golden(t, path, txtar.Format(&txtar.Archive{Comment: a.Comment, Files: []txtar.File{
				{Name: "in", Data: []byte(part(a, "in"))},
				{Name: "backend", Data: []byte(part(a, "backend"))},
				{Name: "out", Data: []byte(got.out)},
				{Name: "err", Data: []byte(got.err)},
				{Name: "result", Data: fmt.Appendln(nil, result)},
				{Name: "started", Data: []byte(strings.Join(f.started, "\n"))},
			}}))
		})
	}
}

// TestReal has the conversations that Debian's dropwatch 1.5.4 had in virtual
// machines: what it printed must come out again, to the byte. These files are
// recordings; -update does not write them. Lines under "differs" are those that
// whydrop leaves out on purpose (docs/compatibility.md).
func TestReal(t *testing.T) {
	recordings, err := filepath.Glob("testdata/real/*.txtar")
	if err != nil || len(recordings) < 3 {
		t.Fatalf("%d recordings, %v", len(recordings), err)
	}
	for _, path := range recordings {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := talk(t, newFake(t, part(a, "backend")), part(a, "in"))
			want := part(a, "out")
			for line := range strings.Lines(part(a, "differs")) {
				without := strings.Replace(want, line, "", 1)
				if without == want {
					t.Errorf("dropwatch did not print %q", line)
				}
				want = without
			}
			if got.out != want || got.err != "" || got.result != nil {
				t.Errorf("want\n%s\ngot\n%s\nand beside it %q, %v", want, got.out, got.err, got.result)
			}
		})
	}
}

// TestLineEnds: the last line needs no end, and others end as on other systems.
func TestLineEnds(t *testing.T) {
	got := talk(t, newFake(t, ""), "show\r\nset sw 0")
	want := `Initializing null lookup method
dropwatch> show
Getting existing configuration
Alert mode: Summary
Truncation length: 0
Queue length: 1000
dropwatch> set sw 0
setting software drops monitoring to 0
dropwatch> Terminating dropwatch...
Shutting down ...
`
	if got.out != want || got.err != "" || got.result != nil {
		t.Errorf("%v, %q\n%s", got.result, got.err, got.out)
	}
}

// brokenPipe fails after so many bytes.
type brokenPipe struct{ left int }

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, syscall.EPIPE
	}
	return len(p), nil
}

// TestEndings: whatever ends the conversation, nothing is monitored after it.
func TestEndings(t *testing.T) {
	for _, tt := range []struct {
		name string
		// out is how many bytes can be written; 0 is no end.
		out int
		// end ends it once it monitors, or waits at the prompt.
		end    func(cancel func(), f *fake)
		start  bool
		want   string
		result error
	}{
		{"terminated while monitoring", 0, func(cancel func(), _ *fake) { cancel() }, true, "Got a stop message\nShutting down ...\n", nil},
		{"terminated at the prompt", 0, func(cancel func(), _ *fake) { cancel() }, false, "dropwatch> Shutting down ...\n", nil},
		{"interrupted at the prompt", 0, func(_ func(), f *fake) { f.interrupts <- os.Interrupt }, false, "dropwatch> Got a sigint while not receiving\nShutting down ...\n", nil},
		{"closed pipe", 150, func(func(), *fake) {}, true, "", syscall.EPIPE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, "session\nwait 20\npoint 1 1\nmessage\npoint 2 2")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			if tt.start {
				fmt.Fprintln(w, "start")
			}
			var out bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := Options{In: r, Out: &out, Err: io.Discard, Backend: f, Interrupts: f.interrupts, Method: "null lookup method"}
			if tt.out > 0 {
				o.Out = &brokenPipe{tt.out}
			}
			result := make(chan error, 1)
			go func() { result <- Run(ctx, o) }()
			time.Sleep(50 * time.Millisecond) // so that it is where it should be; earlier is an end, too
			tt.end(cancel, f)
			if err := ended(t, result); !errors.Is(err, tt.result) {
				t.Errorf("%v, want %v", err, tt.result)
			}
			if f.running || len(f.started) != 0 != tt.start {
				t.Errorf("monitors: %t, started: %q", f.running, f.started)
			}
			if !strings.HasSuffix(out.String(), tt.want) {
				t.Errorf("want %q at the end of\n%s", tt.want, out.String())
			}
		})
	}
}

// TestNoFile: input that cannot be waited for.
func TestNoFile(t *testing.T) {
	var out bytes.Buffer
	o := Options{In: strings.NewReader("stats\nexit\n"), Out: &out, Err: io.Discard, Backend: newFake(t, "stats 5 6"), Method: "null lookup method"}
	if err := Run(t.Context(), o); err != nil || !strings.Contains(out.String(), "Tail dropped: 6\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
