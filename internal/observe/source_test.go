package observe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// fakeSource drops what it is told to.
type fakeSource struct {
	called         string
	counts         []record.Count
	samples        []record.Drop
	losses         losses
	start          time.Time
	detached, shut int
	src            record.Source
	unseen         []record.Blind
}

func (f *fakeSource) name() string                           { return f.called }
func (f *fakeSource) began() time.Time                       { return f.start }
func (f *fakeSource) describe(k *record.Kernel)              { k.ReasonsFrom = "fake" }
func (f *fakeSource) lost() (losses, error)                  { return f.losses, nil }
func (f *fakeSource) detach() error                          { f.detached++; return nil }
func (f *fakeSource) close() error                           { f.shut++; return nil }
func (f *fakeSource) books() (record.Source, []record.Blind) { return f.src, f.unseen }

func (f *fakeSource) poll(sample sampleFunc) error {
	for _, d := range f.samples {
		sample(d.Key, func() record.Drop { return d })
	}
	f.samples = nil
	return nil
}

func (f *fakeSource) drain(sample sampleFunc, count countFunc) error {
	for _, c := range f.counts {
		count(c.Key, c.Drops, c.Bytes)
	}
	f.counts = nil
	return f.poll(sample)
}

// works opens a fake, lacks says why there is none.
func works(name string) opener {
	return opener{name, func(*site) (*opened, error) {
		return &opened{dropSource: &fakeSource{called: name, src: record.Source{Name: name, State: record.SourceOK}}}, nil
	}}
}

func lacksIt(name, missing, fix string) opener {
	return opener{name, func(*site) (*opened, error) { return nil, &UnavailableError{Missing: missing, Fix: fix} }}
}

func testSite(t *testing.T, opt Options) *site {
	t.Helper()
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	return &site{opt: opt, host: kernel.Host{}, names: names, symbols: newSymbols(kernel.Host{}, opt.Symbols)}
}

func TestFirstThatWorks(t *testing.T) {
	noBTF := lacksIt(SourceSkbDrop, "no BTF", "use another kernel")
	noDM := lacksIt(SourceDropmon, "no NET_DM", "")
	for name, c := range map[string]struct {
		list   []opener
		want   string
		failed []string
		note   string
	}{
		"the best":  {[]opener{works(SourceSkbDrop), works(SourceDropmon)}, SourceSkbDrop, nil, ""},
		"no eBPF":   {[]opener{noBTF, works(SourceDropmon)}, SourceDropmon, []string{"no BTF; use another kernel"}, "by the drop monitor"},
		"no drops":  {[]opener{noBTF, noDM, works(SourceCounters)}, SourceCounters, []string{"no BTF; use another kernel", "no NET_DM"}, "no drop is watched"},
		"asked for": {[]opener{works(SourceDropmon)}, SourceDropmon, nil, ""},
	} {
		found, failed, err := openFirst(testSite(t, Options{}), c.list)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if found.name() != c.want {
			t.Errorf("%s: took %s, want %s", name, found.name(), c.want)
		}
		var why []string
		for i, f := range failed {
			if f.State != record.SourceFailed || f.Name == c.want {
				t.Errorf("%s: source %d: %+v", name, i, f)
			}
			why = append(why, f.Why)
		}
		if !slices.Equal(why, c.failed) {
			t.Errorf("%s: failed for %q, want %q", name, why, c.failed)
		}
		notes := fallback(found, failed)
		if (c.note == "") != (len(notes) == 0) {
			t.Errorf("%s: notes %q", name, notes)
		}
		for _, n := range notes {
			for _, want := range append(slices.Clone(c.failed), c.note) {
				if !strings.Contains(n, want) {
					t.Errorf("%s: no %q in %q", name, want, n)
				}
			}
		}
	}
}

func TestNoneWorks(t *testing.T) {
	_, _, err := openFirst(testSite(t, Options{}), []opener{
		lacksIt(SourceSkbDrop, "no BTF", "use another kernel"), lacksIt(SourceDropmon, "no NET_DM", "modprobe"),
	})
	var u *UnavailableError
	if !errors.As(err, &u) {
		t.Fatalf("%v, want an *UnavailableError", err)
	}
	want := "cannot watch packet drops: no BTF; use another kernel; nor by dropmon: no NET_DM"
	if err.Error() != want {
		t.Errorf("got  %q\nwant %q", err, want)
	}
	// The user's mistake, or a bug, is no reason to take another source.
	for _, stop := range []error{&FilterError{errors.New("no such reason")}, errors.New("a bug")} {
		bad := opener{"bad", func(*site) (*opened, error) { return nil, fmt.Errorf("open: %w", stop) }}
		if _, _, err := openFirst(testSite(t, Options{}), []opener{bad, works(SourceDropmon)}); !errors.Is(err, stop) {
			t.Errorf("%v, want %v", err, stop)
		}
	}
}

// TestChoices says what each choice may use, and in which order.
func TestChoices(t *testing.T) {
	for _, c := range []struct {
		choice   Choice
		counters bool
		want     string
	}{
		{"", true, "skbdrop dropmon counters"},
		{ChooseAuto, true, "skbdrop dropmon counters"},
		{ChooseAuto, false, "skbdrop dropmon"},
		{ChooseBPF, true, "skbdrop"},
		{ChooseDropmon, true, "dropmon"},
		{ChooseDropmonPacket, false, "dropmon"},
		{ChooseDropmonSummary, false, "dropmon"},
		{ChooseCounters, true, "counters"},
	} {
		list, err := openers(Options{Source: c.choice, Counters: c.counters})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range list {
			names = append(names, o.name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.choice, got, c.want)
		}
	}
	var u *UnavailableError
	if _, err := openers(Options{Source: ChooseCounters}); !errors.As(err, &u) || !strings.Contains(err.Error(), "counters alone show no single drop") {
		t.Errorf("watching drops by counters: %v", err)
	}
	if _, err := openers(Options{Source: "tea leaves"}); err == nil {
		t.Error("a source that does not exist is taken")
	}
}

// TestSessionAccounts runs a session on a fake: whatever the source, each drop
// is in one place of the books.
func TestSessionAccounts(t *testing.T) {
	wanted := record.Key{Location: record.Location{Symbol: "a"}, NetNS: record.NetNS{Inode: 7}}
	other := record.Key{Location: record.Location{Symbol: "a"}, NetNS: record.NetNS{Inode: 8}}
	f := &fakeSource{
		called: SourceDropmon, start: time.Now(), src: record.Source{Name: SourceDropmon, State: record.SourceOK},
		counts:  []record.Count{{Key: wanted, Drops: 3, Bytes: 30}, {Key: other, Drops: 5}, {Key: wanted, Drops: 1, Bytes: 2}},
		samples: []record.Drop{{Key: wanted}, {Key: other}},
		losses:  losses{mapFull: 1, unattributed: 2, dropsLost: 4, samplesLost: 5, alertsLost: 6, decodeErrs: 7},
		unseen:  []record.Blind{{What: "much"}},
	}
	at := testSite(t, Options{Interval: time.Second})
	failed := []record.Source{{Name: SourceSkbDrop, State: record.SourceFailed, Why: "no BTF"}}
	s := begin(at, &opened{dropSource: f, match: matcher{netns: map[uint32]bool{7: true}}, notes: []string{"loaded a module"}}, failed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got []record.Interval
	if err := s.Run(ctx, func(iv record.Interval) error { got = append(got, iv); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || len(got[0].Counts) != 1 || got[0].Counts[0].Drops != 4 || got[0].Counts[0].Bytes != 32 || len(got[0].Samples) != 1 {
		t.Fatalf("intervals: %+v", got)
	}
	want := record.Accounting{
		DropsSeen: 4 + 5 + 1 + 2 + 4, DropsAggregated: 4, DropsFiltered: 5, MapFull: 1, DropsUnattributed: 2, DropsLost: 4,
		Samples: 2, SamplesLost: 5, AlertsLost: 6, DecodeErrors: 7,
	}
	if got[0].Accounting != want {
		t.Errorf("accounting %+v\nwant       %+v", got[0].Accounting, want)
	}
	if f.detached != 1 || f.shut == 0 {
		t.Errorf("detached %d times, closed %d times", f.detached, f.shut)
	}
	tr := s.Trailer()
	if len(tr.Sources) != 2 || tr.Sources[0] != failed[0] || tr.Sources[1].Name != SourceDropmon || !slices.Contains(tr.Blind, f.unseen[0]) {
		t.Errorf("trailer %+v", tr)
	}
	if notes := s.Notes(); len(notes) != 2 || !strings.Contains(notes[0], "no BTF") || notes[1] != "loaded a module" {
		t.Errorf("notes %q", notes)
	}
	if !s.Watched() || s.Header().Kernel.ReasonsFrom != "fake" || s.ProgramType() != "" {
		t.Errorf("watched %v, header %+v, program %q", s.Watched(), s.Header(), s.ProgramType())
	}
}

// TestCountersAlone: without a source of drops there are none, which is said.
func TestCountersAlone(t *testing.T) {
	s, err := Start(Options{Source: ChooseCounters, Counters: true, Duration: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Run(t.Context(), func(iv record.Interval) error {
		if len(iv.Counts)+len(iv.Samples) != 0 || iv.Accounting != (record.Accounting{}) {
			t.Errorf("drops out of nowhere: %+v", iv)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	tr := s.Trailer()
	if len(tr.Counters) == 0 {
		t.Error("no counters")
	}
	want := record.Source{Name: SourceSkbDrop, State: record.SourceOff, Why: "only counters were asked for"}
	if len(tr.Sources) != 2 || tr.Sources[0] != want || tr.Sources[1].Name != SourceCounters {
		t.Errorf("sources %+v", tr.Sources)
	}
	if !slices.ContainsFunc(tr.Blind, func(b record.Blind) bool { return strings.HasPrefix(b.What, "drops:") }) {
		t.Errorf("blind %+v", tr.Blind)
	}
	if s.Watched() {
		t.Error("says that drops are watched")
	}
	var wrong *FilterError
	if _, err := Start(Options{Source: ChooseCounters, Counters: true, Filter: Filter{Reasons: []string{"NO_SOCKET"}}}); !errors.As(err, &wrong) {
		t.Errorf("a filter of drops, and no drops: %v", err)
	}
}
