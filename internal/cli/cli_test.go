package cli

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/record"
)

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"--no-such-flag"},
		{"no-such-command"},
		{"watch", "argument"},
		{"watch", "--interval", "0s"},
		{"watch", "--interval", "-1s"},
		{"watch", "--interval", "soon"},
		{"watch", "--count", "-1"},
		{"diagnose", "--duration", "0s"},
		{"diagnose", "--fail-on", "benign"},
		{"diagnose", "-r", "/nonexistent/file"},
		{"--color", "sometimes"},
		{"record"},
		{"lab", "run"},
		{"lab", "run", "no-such-loss"},
		{"lab", "run", "udp-noport", "--packets", "0"},
		{"lab", "no-such-command"},
		{"version", "argument"},
		{"help", "no-such-command"},
		{"diagnose", "-r", "FILE", "--duration", "5s"},
		{"watch", "-r", "FILE", "--interval", "5s"},
		{"watch", "-r", "FILE", "--netns", "1"},
		{"watch", "--netns", ""},
		{"diagnose", "-i", ""},
		{"record", "-w", "-", "--reason", ""},
		{"counters", "--netns", ""},
		{"watch", "--source", "magic"},
		{"record", "-w", "/nonexistent/file", "--source", ""},
		{"--source", "dropmon:loud"},
		{"watch", "-r", "FILE", "--source", "bpf"},
		{"diagnose", "-r", "FILE", "--source", "auto"},
		{"diagnose", "--source", "counters", "--reason", "NO_SOCKET"},
		{"diagnose", "--source", "counters", "-i", "lo"},
	} {
		r := run(t, args...)
		if r.code != exitUsage {
			t.Errorf("whydrop %s: exit status %d, want %d\n%s", strings.Join(args, " "), r.code, exitUsage, r.err)
		}
		if r.out != "" {
			t.Errorf("whydrop %s: printed on stdout:\n%s", strings.Join(args, " "), r.out)
		}
		if lines := strings.Count(r.err, "\n"); lines == 0 || lines > 2 || !strings.HasPrefix(r.err, "whydrop: ") {
			t.Errorf("whydrop %s: want one line of error and a hint:\n%s", strings.Join(args, " "), r.err)
		}
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	r := run(t, "--help")
	if r.code != exitOK {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	for _, word := range []string{
		"diagnose", "watch", "counters", "record", "report", "verify", "dump", "doctor", "lab", "explain", "knowledge", "version",
		"--duration", "--json", "--interface", "--reason", "--netns", "--fail-on", "--color", "--source", "--knowledge", "--markdown", "--until-loss", "causes.d",
		"dropmon", "NET_DM",
		"CAP_BPF", "Exit status",
	} {
		if !strings.Contains(r.out, word) {
			t.Errorf("help does not mention %s", word)
		}
	}
}

func TestVersion(t *testing.T) {
	if r := run(t, "version"); r.code != exitOK || !strings.HasPrefix(r.out, "whydrop "+release) {
		t.Errorf("version: %+v", r)
	}
	r := run(t, "version", "-j")
	var v version
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("version -j: %v\n%s", err, r.out)
	}
	if v.Version != release || v.SchemaVersion != record.SchemaVersion || v.Go == "" {
		t.Errorf("version -j = %+v", v)
	}
}

// recorded writes a file as a host with one lossy socket would.
func recorded(t *testing.T, closed bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drops.whydrop")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w, err := record.NewWriter(f, record.Header{
		Host: record.Host{Hostname: "db1"}, Kernel: record.Kernel{Release: "6.18.44"}, Start: start,
		Sources: []record.Source{{Name: "skbdrop", State: record.SourceOK}},
		Blind:   []record.Blind{{What: "rings", Why: "no event"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	lost := record.Key{
		Reason:    record.Reason{Name: "SOCKET_RCVBUFF", Subsystem: "core", Value: 6},
		Location:  record.Location{Symbol: "udp_queue_rcv_one_skb", Offset: 0x437, Address: 0xffffffff81000437},
		NetNS:     record.NetNS{Inode: 4026531833, Name: "host"},
		Device:    record.Device{Index: 2, Name: "eth0"},
		EtherType: 0x800, IPProto: 17, Direction: record.DirectionRX,
	}
	normal := lost
	normal.Reason = record.Reason{Name: "QUEUE_PURGE", Subsystem: "core", Value: 99}
	normal.Location = record.Location{Symbol: "sk_stream_kill_queues", Offset: 0x50, Address: 0xffffffff82000050}
	for i := range 2 {
		iv := record.Interval{
			Window:  record.Window{Start: start.Add(time.Duration(i) * time.Second), End: start.Add(time.Duration(i+1) * time.Second), Duration: time.Second},
			Counts:  []record.Count{{Key: lost, Drops: 87, Bytes: 87000}, {Key: normal, Drops: 3, Bytes: 120}},
			Samples: []record.Drop{{Time: start, KernelTime: 5e9, Key: lost, Length: 1000, CurrentTask: record.Task{PID: 7, TID: 7, Comm: "x"}, Packet: &record.Packet{EtherType: 0x800, Flow: flow("10.0.0.1:4242", "10.0.0.2:5000")}}},
		}
		iv.Accounting = record.Accounting{DropsSeen: 90, DropsAggregated: 90, Samples: 1}
		if err := w.Interval(iv); err != nil {
			t.Fatal(err)
		}
	}
	if closed {
		if err := w.Close(record.Trailer{End: start.Add(2 * time.Second), Sources: []record.Source{{Name: "skbdrop", State: record.SourceOK}}}); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func flow(src, dst string) record.Flow {
	return record.Flow{Proto: 17, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

func TestDiagnoseFile(t *testing.T) {
	path := recorded(t, true)
	r := here(t, "diagnose", "-r", path)
	if r.code != exitOK {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	for _, want := range []string{"174 packets dropped", "socket", "SOCKET_RCVBUFF", "eth0", "udp_queue_rcv_one_skb+0x437", "10.0.0.1:4242", "rings"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in:\n%s", want, r.out)
		}
	}
	if strings.Contains(r.out, "sk_stream_kill_queues") {
		t.Errorf("a benign drop is shown without --all:\n%s", r.out)
	}
	if all := here(t, "diagnose", "-r", path, "--all"); !strings.Contains(all.out, "sk_stream_kill_queues") {
		t.Errorf("a benign drop is not shown with --all:\n%s", all.out)
	}
}

func TestDiagnoseJSON(t *testing.T) {
	r := here(t, "diagnose", "-j", "-r", recorded(t, true))
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		t.Fatalf("%v\n%s", err, r.out)
	}
	if len(d.Findings) != 1 || d.Findings[0].Drops != 174 || d.Findings[0].Class != record.ClassCapacity {
		t.Errorf("findings = %+v", d.Findings)
	}
	a := d.Accounting
	if a.DropsSeen != 180 || a.DropsHiddenBenign+a.DropsHiddenExpected != 6 {
		t.Errorf("accounting = %+v", a)
	}
	if d.Host.Hostname != "db1" || d.Window.Duration != 2*time.Second {
		t.Errorf("host %+v, window %+v", d.Host, d.Window)
	}
}

func TestFailOn(t *testing.T) {
	path := recorded(t, true)
	for class, want := range map[string]int{"fault": exitOK, "capacity": exitFinding, "policy": exitFinding} {
		if r := here(t, "diagnose", "-r", path, "--fail-on", class); r.code != want {
			t.Errorf("--fail-on %s: exit status %d, want %d", class, r.code, want)
		}
	}
	// A finding weighs more than an incomplete file.
	if r := here(t, "diagnose", "-r", recorded(t, false), "--fail-on", "capacity"); r.code != exitFinding {
		t.Errorf("incomplete file with a finding: exit status %d, want %d", r.code, exitFinding)
	}
}

func TestFilterOfFile(t *testing.T) {
	path := recorded(t, true)
	for _, c := range []struct {
		flag, value string
		drops       uint64
	}{
		{"-i", "eth0", 174},
		{"-i", "eth1", 0},
		{"--reason", "skb_drop_reason_socket_rcvbuff", 174},
		{"--reason", "NO_SOCKET", 0},
		{"--netns", "host", 174},
		{"--netns", "4026531833", 174},
		{"--netns", "net:[4026531833]", 174},
		{"--netns", "all", 174},
		{"--netns", "net:[4026531834]", 0},
		{"--netns", "blue", 0},
	} {
		hint := "matches " + c.flag + " " + c.value
		r := here(t, "diagnose", "-j", "-r", path, c.flag, c.value)
		var d record.Diagnosis
		if err := json.Unmarshal([]byte(r.out), &d); err != nil {
			t.Fatalf("%s %s: %v\n%s%s", c.flag, c.value, err, r.out, r.err)
		}
		var got uint64
		for _, f := range d.Findings {
			got += f.Drops
		}
		if got != c.drops {
			t.Errorf("%s %s: %d drops, want %d", c.flag, c.value, got, c.drops)
		}
		if strings.Contains(r.err, hint) != (c.drops == 0) {
			t.Errorf("%s %s: a filter that fits nothing must be said, and no other: %q", c.flag, c.value, r.err)
		}
		if a := d.Accounting; a.DropsSeen != 180 || a.DropsSeen != a.DropsAggregated+a.DropsFiltered {
			t.Errorf("%s %s: accounting does not add up: %+v", c.flag, c.value, a)
		}
	}
}

func TestIncompleteFile(t *testing.T) {
	r := here(t, "diagnose", "-r", recorded(t, false))
	if r.code != exitPartial || !strings.Contains(r.out, "174 packets dropped") || !strings.Contains(r.err, "ends early") {
		t.Errorf("a file without its end: %+v", r)
	}
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("not a record\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{"diagnose", "watch"} {
		if r := here(t, cmd, "-r", junk); r.code != exitUsage || !strings.Contains(r.err, "not a whydrop record") {
			t.Errorf("%s of junk: %+v", cmd, r)
		}
	}
}

func TestWatchFile(t *testing.T) {
	path := recorded(t, true)
	r := here(t, "watch", "-r", path)
	if r.code != exitOK {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if len(lines) != 2 {
		t.Fatalf("want a line for each interval:\n%s", r.out)
	}
	for _, want := range []string{"87 drops at udp_queue_rcv_one_skb+0x437", "SOCKET_RCVBUFF", "dev eth0", "netns host", "10.0.0.1:4242"} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %q in %q", want, lines[0])
		}
	}
	if !strings.Contains(r.err, "180 drops seen") {
		t.Errorf("no accounting in the summary:\n%s", r.err)
	}
	if r := here(t, "watch", "-r", path, "--count", "1"); strings.Count(r.out, "\n") != 1 {
		t.Errorf("--count 1:\n%s", r.out)
	}
	if r := here(t, "watch", "-r", path, "--each"); strings.Count(r.out, "\n") != 2 || !strings.Contains(r.out, "current task") {
		t.Errorf("--each:\n%s", r.out)
	}
}

func TestWatchFileJSON(t *testing.T) {
	r := here(t, "watch", "-j", "-r", recorded(t, true))
	var types []string
	for l := range strings.Lines(r.out) {
		var v struct {
			Type   string `json:"type"`
			Schema int    `json:"schema_version"`
		}
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		if v.Schema != record.SchemaVersion {
			t.Errorf("schema_version %d in %q", v.Schema, l)
		}
		types = append(types, v.Type)
	}
	if got := strings.Join(types, " "); got != "interval interval summary" {
		t.Errorf("types = %s", got)
	}
}

func TestColour(t *testing.T) {
	path := recorded(t, true)
	if r := here(t, "watch", "-r", path); strings.Contains(r.out, "\x1b") {
		t.Errorf("colour in a pipe: %q", r.out)
	}
	if r := here(t, "watch", "-r", path, "--color", "always"); !strings.Contains(r.out, "\x1b[") {
		t.Errorf("no colour with --color always: %q", r.out)
	}
}
