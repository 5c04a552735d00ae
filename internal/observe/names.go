package observe

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/record"
)

// BlindNames is what a record calls names that are not known.
const BlindNames = "names of kernel functions"

// SymbolsError says that the symbols that were asked for cannot be used.
type SymbolsError struct{ Err error }

func (e *SymbolsError) Error() string { return "--symbols: " + e.Err.Error() }
func (e *SymbolsError) Unwrap() error { return e.Err }

// symbols are the names of functions that an observation uses. They are opened
// once, whichever sources are tried.
type symbols struct {
	open func() (*kernel.Names, error)
	// own says whether they are the kernel's own table.
	own bool
	// names is nil where there are none, and hidden says why; it is nil, too,
	// where none were asked for.
	names  *kernel.Names
	hidden error
}

func newSymbols(host kernel.Host, source string) *symbols {
	s := &symbols{own: source == "" || source == kernel.SymbolsKallsyms}
	s.open = sync.OnceValues(func() (*kernel.Names, error) {
		if source == kernel.SymbolsNone {
			return nil, nil
		}
		return host.OpenNames(source)
	})
	return s
}

// read opens them. It returns *SymbolsError where they were asked for by name
// and cannot be used. Where the kernel's own table cannot be read it returns nil.
// With waits, names will do that only the drop monitor's alerts can place.
func (s *symbols) read(waits bool) error {
	s.names, s.hidden = s.open()
	switch {
	case s.own || s.names == nil && s.hidden == nil:
		return nil
	case s.hidden != nil:
		return &SymbolsError{s.hidden}
	}
	err := s.names.Ready()
	switch {
	case err == nil:
		return nil
	case waits && errors.Is(err, kernel.ErrNotPlaced):
		s.hidden = err // the kernel's own words are wanted
		return nil
	}
	return &SymbolsError{fmt.Errorf("%w; --source dropmon:packet finds out by the names that the kernel gives", err)}
}

// Resolve names an address.
func (s *symbols) Resolve(addr uint64) record.Location { return s.names.Resolve(addr) }

// named is nil where there are no names.
func (s *symbols) named() symbolNames {
	if s.names == nil {
		return nil
	}
	return s
}

// learn takes what the kernel calls an address, and says whether that was the
// last that was missing. A contradiction stays: tell says it.
func (s *symbols) learn(addr uint64, text string) (placed bool) {
	if s.names.Learn(addr, text) != nil || s.hidden == nil || s.names.Ready() != nil {
		return false
	}
	s.hidden = nil
	return true
}

// tell adds to what is said of the source that sees drops where the names come
// from, if that is not the kernel itself, and to what is not seen that there are
// none, or fewer than there seemed to be at the start.
func (s *symbols) tell(src record.Source, blind []record.Blind) (record.Source, []record.Blind) {
	if src.Name == "" || s.own && (s.names == nil || s.names.Ready() == nil) {
		return src, blind
	}
	if s.names == nil {
		return src, append(blind, record.Blind{
			What: BlindNames, Why: "--symbols none reads none", Fix: "causes that only the place of a drop tells are not found without them",
		})
	}
	why := "functions by " + s.names.From()
	if err := s.names.Ready(); err != nil {
		why = "functions have no names: " + err.Error()
		if src.State == record.SourceOK {
			src.State = record.SourceDegraded
		}
		if !slices.ContainsFunc(blind, func(b record.Blind) bool { return b.What == BlindNames }) {
			blind = append(blind, record.Blind{What: BlindNames, Why: err.Error()})
		}
	}
	src.Why = AlsoWhy(src.Why, why)
	return src, blind
}

// AlsoWhy adds to what is said of a source.
func AlsoWhy(why, more string) string {
	if why == "" {
		return more
	}
	return why + "; " + more
}

// close lets go of a file.
func (s *symbols) close() error {
	if s.names == nil {
		return nil
	}
	return s.names.Close()
}
