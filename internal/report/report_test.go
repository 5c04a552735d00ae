package report_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// golden compares got with testdata/name.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	testkit.Golden(t, filepath.Join("testdata", name+".golden"), []byte(got))
}

func window(d time.Duration) record.Window {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	return record.Window{Start: start, End: start.Add(d), Duration: d}
}

func flow(proto uint8, src, dst string) record.Flow {
	return record.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

func quiet() record.Diagnosis {
	return record.Diagnosis{
		Window:  window(10 * time.Second),
		Sources: []record.Source{{Name: "skbdrop", State: record.SourceOK}},
		Accounting: record.Accounting{
			DropsSeen: 12, DropsAggregated: 12, DropsExplained: 12,
			DropsHiddenExpected: 3, DropsHiddenBenign: 9, Samples: 12,
		},
		Blind: []record.Blind{
			{What: "drops in the network card", Why: "no packet exists for the kernel there", Fix: "compare ethtool -S"},
		},
	}
}

func lossy() record.Diagnosis {
	d := quiet()
	d.Findings = []record.Finding{
		{
			Cause: record.CauseNotKnown, Class: record.ClassCapacity, Station: record.StationSocket, Direction: record.DirectionRX,
			Title: "The socket's receive buffer was full: the application reads too slowly or SO_RCVBUF is too small (compare Udp RcvbufErrors).",
			Drops: 174, Rate: 17.4, Confidence: record.ConfidencePossible,
			Reasons: []string{"SOCKET_RCVBUFF"}, Locations: []string{"udp_queue_rcv_one_skb+0x437"},
			Devices: []string{"veth0 (netns lab)"}, NetNS: []string{"lab"}, Owners: []string{"socket inode 4242"},
			Flows: []record.FlowShare{
				{Flow: flow(17, "10.0.0.1:4242", "10.0.0.2:5000"), Samples: 11, Of: 12},
				{Flow: flow(17, "[2001:db8::1]:4242", "[2001:db8::2]:5000"), Samples: 1, Of: 12},
			},
			Evidence: []record.Evidence{{
				Kind: "drop", Name: "SOCKET_RCVBUFF@udp_queue_rcv_one_skb", Value: "174", Source: "skb:kfree_skb",
				Command: "bpftrace -e 'tracepoint:skb:kfree_skb /args->reason == 6/ { @[ksym(args->location)] = count(); }'", Supports: true,
			}},
		},
		{
			Cause: record.CauseNotKnown, Class: record.ClassPolicy, Station: record.StationNetfilter, Direction: record.DirectionUnknown,
			Title: "A firewall rule or chain policy dropped the packet.",
			Drops: 1, Rate: 0.1, Reasons: []string{"NETFILTER_DROP"},
			Locations: []string{"a+0x1", "b+0x2", "c+0x3", "d+0x4", "e+0x5", "f+0x6", "g+0x7"},
			Devices:   []string{"eth0"}, NetNS: []string{"host"},
		},
	}
	d.Accounting.DropsSeen += 175
	d.Accounting.DropsAggregated += 175
	d.Accounting.DropsExplained += 175
	return d
}

func diagnosis(t *testing.T, d record.Diagnosis, s report.Style) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Diagnosis(&b, d, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDiagnosis(t *testing.T) {
	incomplete := lossy()
	incomplete.Findings = nil
	incomplete.Accounting = record.Accounting{
		DropsSeen: 30, DropsAggregated: 12, DropsExplained: 10, DropsUnexplained: 2, DropsHiddenBenign: 12,
		DropsUnattributed: 8, MapFull: 10, SamplesLost: 3, DecodeErrors: 1, Samples: 4,
	}
	incomplete.Sources = []record.Source{
		{Name: "skbdrop", State: record.SourceDegraded, Why: "no kallsyms"},
		{Name: "netdm", State: record.SourceOff, Why: "not needed"},
	}
	oldKernel := lossy()
	oldKernel.Findings = oldKernel.Findings[:1]
	oldKernel.Findings[0].Reasons = []string{}
	oldKernel.Window = window(time.Hour)
	many := lossy()
	for range 3 {
		many.Findings = append(many.Findings, many.Findings[1])
	}
	all := quiet()
	all.Accounting.DropsHiddenBenign, all.Accounting.DropsHiddenExpected = 0, 0
	all.Findings = []record.Finding{{
		Class: record.ClassBenign, Station: record.StationSocket, Drops: 12, Rate: 1.2,
		Title: "A TCP connection was closed.", Reasons: []string{"QUEUE_PURGE"},
	}}
	filtered := quiet()
	filtered.Accounting.DropsSeen += 5
	filtered.Accounting.DropsFiltered = 5
	blindfold := quiet()
	blindfold.Sources[0] = record.Source{Name: "skbdrop", State: record.SourceFailed, Why: "no BTF"}
	disagree := quiet()
	disagree.Accounting.DropsSeen = 20

	for _, c := range []struct {
		name  string
		d     record.Diagnosis
		style report.Style
	}{
		{"loss", lossy(), report.Style{}},
		{"loss-color", lossy(), report.Style{Color: true}},
		{"loss-narrow", lossy(), report.Style{Width: 40}},
		{"loss-quiet", lossy(), report.Style{Quiet: true}},
		{"loss-many", many, report.Style{}},
		{"loss-old-kernel", oldKernel, report.Style{}},
		{"no-loss", quiet(), report.Style{}},
		{"no-loss-all", all, report.Style{All: true}},
		{"no-loss-filtered", filtered, report.Style{}},
		{"nothing-watched", blindfold, report.Style{}},
		{"incomplete", incomplete, report.Style{}},
		{"incomplete-quiet", incomplete, report.Style{Quiet: true}},
		{"disagree", disagree, report.Style{}},
		{"empty", record.Diagnosis{}, report.Style{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := diagnosis(t, c.d, c.style)
			golden(t, c.name, got)
			checkLines(t, got)
		})
	}
}

// checkLines holds what every text output has to keep to.
func checkLines(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.TrimRight(line, " ") != line {
			t.Errorf("spaces at the end of %q", line)
		}
	}
}

// The verdict must not say that nothing was lost where something was not
// seen: a scripted reader may read no further than the first line.
func TestVerdictIsNeverNoLossWhenDropsHaveNoPlace(t *testing.T) {
	for _, a := range []record.Accounting{{DropsSeen: 1, MapFull: 1}, {DropsSeen: 1, DropsUnattributed: 1}} {
		d := quiet()
		d.Accounting = a
		first, _, _ := strings.Cut(diagnosis(t, d, report.Style{Quiet: true}), "\n")
		if first != "act: 1 packet dropped in 10 s, and where is not known." {
			t.Errorf("%+v: %q", a, first)
		}
	}
}

func TestLinesFitTheWidth(t *testing.T) {
	d := lossy()
	for i := range d.Findings { // a command is one long word to copy
		d.Findings[i].Evidence = nil
	}
	_, rest, _ := strings.Cut(diagnosis(t, d, report.Style{}), "\n") // the verdict is one line
	for line := range strings.Lines(rest) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// Colour is an addition: without it the text says the same.
func TestColorAddsCodesAlone(t *testing.T) {
	strip := strings.NewReplacer("\x1b[31m", "", "\x1b[33m", "", "\x1b[36m", "", "\x1b[2m", "", "\x1b[0m", "")
	d := lossy()
	d.Findings[1].Class = record.ClassFault
	plain, colored := diagnosis(t, d, report.Style{}), diagnosis(t, d, report.Style{Color: true})
	if strip.Replace(colored) != plain {
		t.Errorf("without codes:\n%s\nplain:\n%s", strip.Replace(colored), plain)
	}
	for _, want := range []string{"\x1b[33mCAPACITY\x1b[0m", "\x1b[31mFAULT\x1b[0m"} {
		if !strings.Contains(colored, want) {
			t.Errorf("no %q in %q", want, colored)
		}
	}
}

// Names come from whoever may create a device, a namespace or a process.
func TestHostileNamesArePrintedHarmlessly(t *testing.T) {
	const evil = "\x1b]0;pwned\x07\u009b2J\u202e\xff\n"
	d := lossy()
	spoil(&d, evil)
	drop := each()[0]
	spoil(&drop, evil)
	iv, classes := interval()
	spoil(&iv, evil)
	total := report.Total{Sources: d.Sources, Blind: d.Blind}
	outputs := map[string]func(io.Writer) error{
		"diagnosis": func(w io.Writer) error { return report.Diagnosis(w, d, report.Style{All: true}) },
		"interval":  func(w io.Writer) error { return report.Interval(w, iv, classes, report.Style{All: true}) },
		"each":      func(w io.Writer) error { return report.Each(w, drop, record.Class(evil), report.Style{}) },
		"summary":   func(w io.Writer) error { return report.Summary(w, total, report.Style{}) },
		"json":      func(w io.Writer) error { return report.JSON(w, d) },
		"ndjson":    func(w io.Writer) error { return report.DropJSON(w, drop, "") },
	}
	for name, print := range outputs {
		var b bytes.Buffer
		if err := print(&b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.Contains(b.String(), "pwned") {
			t.Errorf("%s: the names are not in the output: %s", name, b.String())
		}
		for line := range strings.Lines(b.String()) {
			if h := hostile(strings.TrimSuffix(line, "\n")); h != "" {
				t.Errorf("%s: %s in %q", name, h, line)
			}
		}
	}
}

// spoil overwrites every string below what v points to.
func spoil(v any, evil string) { spoilStrings(reflect.ValueOf(v).Elem(), evil) }

// spoilStrings overwrites every string below v that is not empty.
func spoilStrings(v reflect.Value, evil string) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() && v.Len() > 0 {
			v.SetString(v.String() + evil)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			spoilStrings(v.Elem(), evil)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				spoilStrings(v.Field(i), evil)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoilStrings(v.Index(i), evil)
		}
	}
}

// full is a disk that is full.
type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrorsComeBack(t *testing.T) {
	iv, classes := interval()
	for name, err := range map[string]error{
		"diagnosis": report.Diagnosis(full{}, lossy(), report.Style{}),
		"interval":  report.Interval(full{}, iv, classes, report.Style{}),
		"each":      report.Each(full{}, each()[0], "", report.Style{}),
		"summary":   report.Summary(full{}, report.Total{}, report.Style{}),
		"json":      report.JSON(full{}, 1),
	} {
		if !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
