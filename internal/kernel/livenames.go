package kernel

import (
	"fmt"

	"github.com/whydrop/whydrop/record"
)

// maxKnown bounds the addresses whose names are kept.
const maxKnown = 1 << 16

// liveNames names by what the running kernel says. It reads and loads nothing
// before there is an address to name, for most observations see none, or few.
//
// An address is asked for by itself where the kernel can be asked (asker). Its
// whole table is read for the first one that this does not settle.
type liveNames struct {
	// modules are those of when the names were opened: the place of a drop in one
	// that is gone when it is named is told as a place in that module.
	modules moduleSpans
	// newAsker is nil where the kernel is not to be asked: it is another one.
	newAsker func() (kernelWords, error)
	asker    kernelWords // nil before the first address, and where it does not work
	// known is what the kernel called addresses, where that was sure.
	known map[uint64]record.Location
	// readTable reads the table; read is false where that was done before, for
	// others. load reads it anew.
	readTable func() (table *Symbols, read bool, err error)
	load      func() (*Symbols, error)
	table     *Symbols
	tableErr  error
}

// kernelWords is what liveNames needs of asker.
type kernelWords interface {
	resolve(addr uint64) (at record.Location, sure bool, err error)
	close() error
}

// openLive begins to name by the running kernel. An error wraps
// ErrAddressesHidden where it does not show this process where functions are.
func (h Host) openLive() (*liveNames, error) {
	// Its start says whether it can be read.
	if _, err := h.kallsymsHead(); err != nil {
		return nil, err
	}
	l := &liveNames{known: map[uint64]record.Location{}, readTable: h.sharedSymbols, load: h.LoadSymbols}
	if h == (Host{}) {
		l.newAsker = func() (kernelWords, error) { return newAsker() }
	}
	l.modules.read(h)
	return l, nil
}

// sharedSymbols is SharedSymbols for the live system.
func (h Host) sharedSymbols() (*Symbols, bool, error) {
	if h == (Host{}) {
		return SharedSymbols()
	}
	table, err := h.LoadSymbols()
	return table, true, err
}

// prepare asks the kernel for an address, and reads its table where that does not
// tell what there is.
func (l *liveNames) prepare(addr uint64) (read bool) {
	if l.ask(addr) || l.table != nil || l.tableErr != nil {
		return false
	}
	l.table, read, l.tableErr = l.readTable()
	return read
}

// ask says whether the kernel's own words for an address are known now.
func (l *liveNames) ask(addr uint64) bool {
	if _, ok := l.known[addr]; ok {
		return true
	}
	if l.newAsker != nil {
		// On kernels before 5.13, and without the right to load a program, it is
		// the table that tells.
		if a, err := l.newAsker(); err == nil {
			l.asker = a
		}
		l.newAsker = nil
	}
	if l.asker == nil {
		return false
	}
	at, sure, err := l.asker.resolve(addr)
	if err != nil || !sure {
		return false
	}
	if len(l.known) >= maxKnown {
		clear(l.known)
	}
	l.known[addr] = at
	return true
}

func (l *liveNames) resolve(addr uint64) record.Location {
	if at, ok := l.known[addr]; ok {
		return at
	}
	at := record.Location{Address: record.Address(addr)}
	if l.table != nil {
		at = l.table.Resolve(addr)
	}
	if at.Symbol == "" || at.Beyond {
		// A module that is gone may have been there when the packet was dropped.
		if was, ok := l.modules.find(addr); ok && was.Module != at.Module {
			return was
		}
	}
	return at
}

func (l *liveNames) knows(addr uint64) bool {
	if _, ok := l.known[addr]; ok || l.table == nil {
		return true // without a table there is none to read again
	}
	return l.table.Knows(addr)
}

func (l *liveNames) reload() {
	// Without a new table the old one is what there is.
	if t, err := l.load(); err == nil {
		l.table = t
	}
}

func (l *liveNames) learn(uint64, string) error { return nil }

func (l *liveNames) ready() error {
	if l.tableErr != nil {
		return fmt.Errorf("some addresses have no names: %w", l.tableErr)
	}
	return nil
}

func (l *liveNames) from() string { return "the running kernel" }

func (l *liveNames) close() error {
	if l.asker == nil {
		return nil
	}
	a := l.asker
	l.asker = nil
	if err := a.close(); err != nil {
		return fmt.Errorf("close what asks the kernel for names: %w", err)
	}
	return nil
}
