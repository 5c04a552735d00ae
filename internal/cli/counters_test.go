package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// mine is this process as --netns takes it.
func mine() string { return fmt.Sprint(os.Getpid()) }

func counterReportsOf(t *testing.T, r result) []record.CounterReport {
	t.Helper()
	var list []record.CounterReport
	for l := range strings.Lines(r.out) {
		var v record.CounterReport
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		list = append(list, v)
	}
	return list
}

// It needs neither root nor eBPF.
func TestCountersOfOwnNamespace(t *testing.T) {
	r := here(t, "counters", "--netns", mine(), "--all", "-j")
	list := counterReportsOf(t, r)
	if r.code != exitOK || len(list) != 1 {
		t.Fatalf("exit status %d, %d objects: %s", r.code, len(list), r.err)
	}
	v := list[0]
	if v.Type != record.TypeCounters || v.SchemaVersion != record.SchemaVersion || !v.SinceBoot || v.Window.Start.IsZero() ||
		v.Host.Program != release || v.Kernel.Release == "" || v.Source.Name != "counters" || v.Hidden != 0 {
		t.Errorf("%+v %+v %+v %+v hidden %d", v.Host, v.Kernel, v.Source, v.Window, v.Hidden)
	}
	found := map[string]bool{}
	for _, s := range v.Stations {
		for _, c := range s.Counters {
			found[string(s.Station)+" "+c.Kind+" "+c.Name] = true
		}
	}
	for _, want := range []string{"socket loss Udp.RcvbufErrors", "socket activity Udp.InDatagrams"} {
		if !found[want] {
			t.Errorf("no %q", want)
		}
	}
	if len(v.Stations) != len(record.Stations()) {
		t.Errorf("%d stations", len(v.Stations))
	}
}

func TestCountersText(t *testing.T) {
	r := here(t, "counters", "--netns", mine())
	if r.code != exitOK || r.err != "" || !strings.HasPrefix(r.out, "packets lost since boot") || !strings.Contains(r.out, "├") {
		t.Errorf("%+v", r)
	}
	r = here(t, "counters", "--netns", mine(), "--map", "--ascii")
	if r.code != exitOK || strings.Contains(r.out, "├") || !strings.Contains(r.out, "  socket     +") || strings.Contains(r.out, "hidden") {
		t.Errorf("%+v", r)
	}
	r = here(t, "counters", "--netns", mine(), "--map", "-q")
	if r.code != exitOK || !strings.Contains(r.out, "├") || strings.Contains(r.out, "not seen") {
		t.Errorf("a map that was asked for: %+v", r)
	}
	r = here(t, "counters", "--netns", mine(), "-i", "lo", "--map")
	if r.code != exitOK || !strings.HasPrefix(r.out, "packets lost on lo since boot") || !strings.Contains(r.out, "  routing    ? ") || strings.Contains(r.out, "  nic        ? ") {
		t.Errorf("a map of one device: %+v", r)
	}
	r = here(t, "counters", "--netns", mine(), "-i", "lo", "--all", "-q")
	if r.code != exitOK || !strings.Contains(r.out, "link.rx_dropped") || strings.Contains(r.out, "Udp.") || strings.Contains(r.out, "├") {
		t.Errorf("of a device: %+v", r)
	}
}

// An interval is a line each; what could not be read is said at the end.
func TestCountersInterval(t *testing.T) {
	r := here(t, "counters", "--netns", mine(), "--interval", "20ms", "--count", "3", "-j")
	list := counterReportsOf(t, r)
	if r.code != exitOK || len(list) != 3 {
		t.Fatalf("exit status %d, %d objects: %s", r.code, len(list), r.err)
	}
	for i, v := range list {
		if v.SinceBoot || v.Window.Duration <= 0 || i > 0 && !v.Window.Start.Equal(list[i-1].Window.End) {
			t.Errorf("interval %d: %+v", i, v.Window)
		}
	}
	r = here(t, "counters", "--netns", mine(), "--interval", "20ms", "-c", "2")
	if r.code != exitOK || strings.Count(r.out, "packets lost in ") != 2 || strings.Contains(r.out, "├") || strings.Contains(r.out, "not seen") {
		t.Errorf("%+v", r)
	}
}

func TestCountersUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--interval", "0s"},
		{"--interval", "-1s"},
		{"--count", "3"},
		{"--count", "-1", "--interval", "1s"},
		{"-i", ""},
		{"-i", "no-such-device"},
		{"--netns", ""},
		{"--netns", "no-such"},
		{"--netns", "unit/no-such.service"},
		{"argument"},
	} {
		r := here(t, append([]string{"counters"}, args...)...)
		if r.code != exitUsage || r.out != "" || strings.Count(r.err, "\n") != 2 {
			t.Errorf("counters %s: %+v", strings.Join(args, " "), r)
		}
	}
}

// A namespace that was asked for and cannot be read: partial, or nothing at all.
func TestCountersUnread(t *testing.T) {
	gone := fmt.Sprintf("net:[%d]", netns.FirstInode+12345)
	r := here(t, "counters", "--netns", gone)
	if r.code != exitUnavailable || r.out != "" || !strings.Contains(r.err, "cannot read the kernel's counters") {
		t.Errorf("%+v", r)
	}
	r = here(t, "counters", "--netns", gone, "--netns", mine())
	if r.code != exitPartial || r.out == "" || !strings.Contains(r.err, gone) {
		t.Errorf("%+v", r)
	}
}
