package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// TestDumpOptions holds the options to those of dwdump 1.5.4, as its table of
// long options and its defaults say.
func TestDumpOptions(t *testing.T) {
	type option struct{ Long, Default string }
	want := map[string]option{
		"w": {"write", "-"}, "t": {"trunc", "65535"}, "q": {"query", "false"}, "l": {"limit", "1000"},
		"p": {"passive", "false"}, "s": {"stats", "false"}, "b": {"bufsize", "1048576"}, "o": {"origin", ""},
		"e": {"exit", "false"}, "h": {"help", "false"},
		"c": {"count", "0"}, // ours
	}
	c := (&app{}).dumpCommand()
	c.InitDefaultHelpFlag()
	got := map[string]option{}
	for letter := 'a'; letter <= 'z'; letter++ {
		if f := c.Flags().ShorthandLookup(string(letter)); f != nil {
			got[f.Shorthand] = option{f.Name, f.DefValue}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestDumpCheck: what means nothing is refused, and what dwdump takes for all is
// all.
func TestDumpCheck(t *testing.T) {
	for given, want := range map[uint32]uint32{0: 65535, 1: 1, 65535: 65535, 65536: 65535} {
		d := dumpFlags{write: "-", truncate: given, queue: 1, buffer: 1}
		if err := d.check(); err != nil || d.truncate != want {
			t.Errorf("-t %d: %d, %v; want %d", given, d.truncate, err, want)
		}
	}
	for origin, want := range map[string][2]bool{"": {true, true}, "sw": {true, false}, "hw": {false, true}} {
		d := dumpFlags{origin: origin}
		if got := [2]bool{d.software(), d.hardware()}; got != want {
			t.Errorf("-o %q: software, hardware are %v, want %v", origin, got, want)
		}
	}
	for _, args := range [][]string{
		{"dump", "-o", "both"},
		{"dump", "-t", "-1"},
		{"dump", "-t", "some"},
		{"dump", "-l", "0"},
		{"dump", "-b", "0"},
		{"dump", "-b", "1073741824"},
		{"dump", "-q", "-s"},
		{"dump", "-e", "-p"},
		{"dump", "-c", "-1"},
		{"dump", "--duration", "-1s"},
		{"dump", "-w", ""},
		{"dump", "file"},
		{"dump", "-w", "/nonexistent/file"},
		{"report"},
		{"report", "a", "b"},
		{"report", "-r", "a", "b"},
		{"report", "/nonexistent/file"},
		{"report", fileOfDwdump, "--fail-on", "benign"},
		{"report", fileOfDwdump, "--netns", "1"},
		{"report", "--duration", "1s"},
	} {
		if r := here(t, args...); r.code != exitUsage || r.out != "" {
			t.Errorf("%q: exit status %d, want %d\n%s%s", args, r.code, exitUsage, r.out, r.err)
		}
	}
	if r := here(t, "dump", "-h"); r.code != exitOK || r.err != "" {
		t.Errorf("dump -h: exit status %d\n%s", r.code, r.err)
	}
}

func TestDumpAnswers(t *testing.T) {
	config := dropmon.Config{Mode: dropmon.ModePacket, Truncate: 128, Queue: 1000}
	both := dropmon.Stats{Software: dropmon.Tail{Dropped: 5, Known: true}, Hardware: dropmon.Tail{Known: true}}
	one := dropmon.Stats{Hardware: dropmon.Tail{Dropped: 7, Known: true}}
	for _, tt := range []struct {
		json  bool
		print func(a *app) error
		want  string
	}{
		{false, func(a *app) error { return a.printConfig(config) }, "Alert mode: packet\nTruncation length: 128\nQueue length: 1000\n"},
		{false, func(a *app) error { return a.printStats(both) }, "Software statistics:\nTail dropped: 5\nHardware statistics:\nTail dropped: 0\n"},
		{false, func(a *app) error { return a.printStats(one) }, "Hardware statistics:\nTail dropped: 7\n"},
		{true, func(a *app) error { return a.printConfig(config) }, `{"alert_mode":"packet","queue_length":1000,"schema_version":1,"truncation_length":128}`},
		{true, func(a *app) error { return a.printStats(one) }, `{"hardware_tail_dropped":7,"schema_version":1,"software_tail_dropped":null}`},
	} {
		var out bytes.Buffer
		if err := tt.print(&app{out: &out, json: tt.json}); err != nil {
			t.Fatal(err)
		}
		got := out.String()
		if tt.json {
			var compact bytes.Buffer
			if err := json.Compact(&compact, out.Bytes()); err != nil {
				t.Fatal(err)
			}
			got = compact.String()
		}
		if got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
