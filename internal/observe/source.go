package observe

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// Choice says which source is to see the drops.
type Choice string

// The choices. The zero value is ChooseAuto.
const (
	// ChooseAuto takes the first that works: ChooseBPF, then ChooseDropmon where
	// the kernel has the drop monitor already, then ChooseCounters where counters
	// are asked for. It loads no module.
	ChooseAuto Choice = "auto"
	// ChooseBPF is the tracepoint skb:kfree_skb.
	ChooseBPF Choice = "bpf"
	// ChooseDropmon is the drop monitor (NET_DM), for which a module may be
	// loaded. It is in summary mode, unless single drops or reasons are asked
	// for, or kallsyms hides where functions are.
	ChooseDropmon Choice = "dropmon"
	// ChooseDropmonSummary and ChooseDropmonPacket say which mode.
	ChooseDropmonSummary Choice = "dropmon:summary"
	ChooseDropmonPacket  Choice = "dropmon:packet"
	// ChooseCounters sees no drop, only the counters of the kernel.
	ChooseCounters Choice = "counters"
)

// Choices are the words that a user chooses from.
func Choices() []Choice {
	return []Choice{ChooseAuto, ChooseBPF, ChooseDropmon, ChooseDropmonSummary, ChooseDropmonPacket, ChooseCounters}
}

// dropSource is one way of seeing the packets that the kernel drops. Its
// methods must not be called at the same time.
type dropSource interface {
	// name is the source's in a record.
	name() string
	// began is when the watching began: no later than the first drop counted.
	began() time.Time
	// describe fills in what the source knows of the kernel.
	describe(*record.Kernel)
	// poll hands on the samples that have arrived and lets further ones come. It
	// is called ten times a second.
	poll(sampleFunc) error
	// drain hands on what was counted since the last time, and the samples that
	// have arrived by then.
	drain(sampleFunc, countFunc) error
	// lost are the totals of what has no key or was not counted.
	lost() (losses, error)
	// detach stops the watching; what came in until then can still be drained. It
	// may be called more than once.
	detach() error
	// books say how well it works and what it cannot see, as of now.
	books() (record.Source, []record.Blind)
	// close detaches and frees everything. It may be called more than once.
	close() error
}

// sampleFunc takes a sampled drop: its key, and what makes a record of it, which
// must be called before sampleFunc returns.
type sampleFunc func(k record.Key, whole func() record.Drop)

// countFunc takes a number of drops with the same key. A key may come more than
// once.
type countFunc func(k record.Key, drops, bytes uint64)

// losses are totals since a source began.
type losses struct {
	mapFull, unattributed, dropsLost    uint64
	samplesLost, alertsLost, decodeErrs uint64
}

// since fills in what came after old.
func (l losses) since(old losses, a *record.Accounting) {
	after := func(now, old uint64) uint64 { return now - min(now, old) }
	a.MapFull = after(l.mapFull, old.mapFull)
	a.DropsUnattributed = after(l.unattributed, old.unattributed)
	a.DropsLost = after(l.dropsLost, old.dropsLost)
	a.SamplesLost = after(l.samplesLost, old.samplesLost)
	a.AlertsLost = after(l.alertsLost, old.alertsLost)
	a.DecodeErrors = after(l.decodeErrs, old.decodeErrs)
}

// site is what a source needs to know of where it is opened.
type site struct {
	opt   Options
	host  kernel.Host
	names *netns.Names
	// symbols are those of Options.Symbols.
	symbols *symbols
	// offset is CLOCK_REALTIME minus CLOCK_MONOTONIC.
	offset time.Duration
}

// opened is a source that works, with the filter made ready for its keys.
type opened struct {
	dropSource
	match matcher
	// notes are what opening it did that a user should know.
	notes []string
}

// opener opens a source. It returns *UnavailableError where that does not work
// here, and *FilterError for a filter that names nothing.
type opener struct {
	name string
	open func(*site) (*opened, error)
}

// openers are the sources of a choice, the best first.
func openers(opt Options) ([]opener, error) {
	bpf := opener{SourceSkbDrop, openSkbDrop}
	dropmon := func(mode Choice, load bool) opener {
		return opener{SourceDropmon, func(s *site) (*opened, error) { return openDropmon(s, mode, load) }}
	}
	none := opener{SourceCounters, openNothing}
	switch opt.Source {
	case ChooseAuto, "":
		list := []opener{bpf, dropmon(ChooseDropmon, false)}
		if opt.Counters {
			list = append(list, none)
		}
		return list, nil
	case ChooseBPF:
		return []opener{bpf}, nil
	case ChooseDropmon, ChooseDropmonSummary, ChooseDropmonPacket:
		return []opener{dropmon(opt.Source, true)}, nil
	case ChooseCounters:
		if !opt.Counters {
			return nil, &UnavailableError{
				Missing: "counters alone show no single drop",
				Fix:     "take another --source, or look at them with whydrop counters or diagnose --source counters",
			}
		}
		return []opener{none}, nil
	}
	return nil, fmt.Errorf("source %q: there is none of that name", opt.Source)
}

// openFirst opens the first source that works. The others before it are in
// failed.
func openFirst(s *site, list []opener) (_ *opened, failed []record.Source, _ error) {
	var first *UnavailableError
	var why []string
	for _, o := range list {
		found, err := o.open(s)
		if err == nil {
			return found, failed, nil
		}
		var u *UnavailableError
		if !errors.As(err, &u) {
			return nil, nil, err
		}
		if first == nil {
			first = u
		} else {
			why = append(why, fmt.Sprintf("nor by %s: %s", o.name, u.Missing))
		}
		failed = append(failed, record.Source{Name: o.name, State: record.SourceFailed, Why: u.reason()})
	}
	if first == nil {
		return nil, nil, errors.New("no source was asked for")
	}
	if len(why) > 0 {
		all := *first
		all.Fix = strings.TrimPrefix(all.Fix+"; "+strings.Join(why, "; "), "; ")
		first = &all
	}
	return nil, failed, first
}

// fallback says in a sentence that a lesser source was taken, and why.
func fallback(found dropSource, failed []record.Source) []string {
	if len(failed) == 0 {
		return nil
	}
	var why []string
	for _, f := range failed {
		why = append(why, f.Name+": "+f.Why)
	}
	text := "drops are watched by the drop monitor, which tells less of them ("
	if found.name() == SourceCounters {
		text = "no drop is watched, only the kernel's counters are read ("
	}
	return []string{text + strings.Join(why, "; ") + ")"}
}
