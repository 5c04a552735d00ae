package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netlinkpcap"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/record"
)

// symbolsHelp explains --symbols where there is room for it.
const symbolsHelp = `Names of functions come from the running kernel (--symbols kallsyms), from a file,
or from nowhere (none). A file is a System.map, or a vmlinux, whose debugging
information gives file and line too. It must be of this very kernel: that is
checked by the distances between symbols, and by the build id. /proc/kallsyms is
then read no further than its first symbols, which say how far KASLR moved the
kernel. With -r a file names what was recorded, on any machine; of a capture,
where its alerts name two functions of the kernel.`

// symbolsFlag adds --symbols.
func (w *watching) symbolsFlag(c *cobra.Command) {
	c.Flags().StringVar(&w.symbols, "symbols", kernel.SymbolsKallsyms,
		"names of functions: kallsyms, none, or a `file` (System.map, vmlinux), see whydrop --help")
}

// openNamed opens a recorded file, and names its places by the symbols that were
// asked for.
func (a *app) openNamed(w *watching) (recording, func(), error) {
	r, done, err := a.openRecord(w.file)
	if err != nil || w.symbols == "" || w.symbols == kernel.SymbolsKallsyms {
		return r, done, err
	}
	var said []record.Location
	if _, ok := r.(*netlinkpcap.Reader); ok {
		if w.file == "-" {
			done()
			return nil, nil, usage(errors.New("--symbols: a capture is read twice for it: name its file, not standard input"))
		}
		said = a.said(w.file)
	}
	names, err := kernel.OpenNamesOf(w.symbols, r.Header(), said...)
	if err != nil {
		done()
		return nil, nil, usage(fmt.Errorf("--symbols: %w", err))
	}
	return &named{r, names}, func() {
		// It is only read: closing can lose nothing.
		_ = names.Close()
		done()
	}, nil
}

// maxSaid bounds the functions that a capture is asked for.
const maxSaid = 256

// said are places of a capture as its kernel named them, one of each function:
// they tell where that kernel lay, which nothing else in a capture does. What is
// wrong with the file is told where it is read again. The first place is none, for
// a capture that names none.
func (a *app) said(path string) []record.Location {
	list := []record.Location{{}}
	again, done, err := a.openRecord(path)
	if err != nil {
		return list
	}
	defer done()
	seen := map[string]bool{}
	for len(list) < maxSaid {
		iv, err := again.Next()
		if err != nil {
			break
		}
		for i := range iv.Counts {
			if at := iv.Counts[i].Location; at.Symbol != "" && !at.OffsetCut && !seen[at.Symbol] {
				seen[at.Symbol] = true
				list = append(list, at)
			}
		}
	}
	return list
}

// checkSymbols refuses, beside -r, what only a running kernel has.
func (w *watching) checkSymbols(c *cobra.Command) error {
	if !c.Flags().Changed("symbols") {
		return nil
	}
	switch w.symbols {
	case "":
		return usage(fmt.Errorf("--symbols %q: want kallsyms, none or a file", w.symbols))
	case kernel.SymbolsKallsyms, kernel.SymbolsNone:
		if w.file != "" {
			return usage(fmt.Errorf("--symbols %s says how to watch; with -r it takes a file", w.symbols))
		}
	}
	return nil
}

// named is a recording whose places get names, and places in the source, from a
// file of symbols.
type named struct {
	recording
	names *kernel.Names
}

func (n *named) Header() record.Header {
	h := n.recording.Header()
	h.Sources, h.Blind = n.books(h.Sources, h.Blind)
	return h
}

func (n *named) Trailer() (record.Trailer, bool) {
	t, ok := n.recording.Trailer()
	if ok {
		t.Sources, t.Blind = n.books(t.Sources, t.Blind)
	}
	return t, ok
}

// books say where the names come from now.
func (n *named) books(sources []record.Source, blind []record.Blind) ([]record.Source, []record.Blind) {
	sources = slices.Clone(sources)
	for i := range sources {
		if s := &sources[i]; s.Name == observe.SourceSkbDrop || s.Name == observe.SourceDropmon {
			s.Why = observe.AlsoWhy(s.Why, "functions by "+n.names.From())
		}
	}
	return sources, slices.DeleteFunc(slices.Clone(blind), func(b record.Blind) bool { return b.What == observe.BlindNames })
}

func (n *named) Next() (record.Interval, error) {
	iv, err := n.recording.Next()
	if err != nil {
		return iv, err
	}
	for i := range iv.Counts {
		n.name(&iv.Counts[i].Location)
	}
	for i := range iv.Samples {
		d := &iv.Samples[i]
		n.name(&d.Location)
		for j := range d.Stack {
			n.name(&d.Stack[j])
		}
	}
	return iv, nil
}

// name names a place of the kernel itself. A name that the running kernel gave
// stays: a file can have another one for the same address.
func (n *named) name(at *record.Location) {
	if at.Address == 0 || at.Module != "" {
		return
	}
	found := n.names.Resolve(uint64(at.Address))
	switch {
	case at.Symbol == "" && found.Symbol != "", at.OffsetCut && found.Symbol != "" && continues(found, at.Symbol):
		*at = found
	case at.Symbol != "" && found.File != "":
		at.File, at.Line = found.File, found.Line
	}
}

// continues says whether a place may be the one whose name came cut.
func continues(found record.Location, cut string) bool {
	begin, more := strings.CutSuffix(cut, "…")
	return !found.Beyond && (found.Symbol == begin || more && strings.HasPrefix(found.Symbol, begin))
}
