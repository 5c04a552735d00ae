package kernel

import (
	"sync"
	"time"

	"github.com/whydrop/whydrop/record"
)

// The sources of names that are no files. A file of such a name is ./none.
const (
	SymbolsKallsyms = "kallsyms"
	SymbolsNone     = "none"
)

// readAgain is the least time between two readings of a source of names.
const readAgain = 10 * time.Second

// maxAsked bounds the addresses that a source is read again for.
const maxAsked = 1 << 16

// Names names the addresses of kernel code, by one source. It may be used by
// several goroutines at once.
//
// An address that its source does not surely know, of a module or a BPF program
// that came since it was read, makes it read again: once for each such address,
// and at most every ten seconds.
type Names struct {
	from naming
	now  func() time.Time

	mu    sync.Mutex
	read  time.Time
	asked map[uint64]bool
}

// naming is one source of names. Its methods are not called at the same time.
type naming interface {
	// prepare is called before an address is resolved. read says whether what
	// knows it was read just now, and need not be read again.
	prepare(addr uint64) (read bool)
	// resolve names an address.
	resolve(addr uint64) record.Location
	// knows says whether the name of an address is still the right one.
	knows(addr uint64) bool
	// reload reads again what may have changed. What it cannot read stays.
	reload()
	// learn takes what the kernel calls an address.
	learn(addr uint64, text string) error
	// ready says why addresses cannot be named yet.
	ready() error
	// from says in one line where names come from.
	from() string
	close() error
}

// OpenNames opens a source of names for the running kernel: SymbolsKallsyms (or
// "") for what the kernel itself says, SymbolsNone, or a file: a System.map, or an ELF file such as vmlinux, whose
// debugging information then gives file and line too.
//
// With a file, the kernel's own table of symbols is not read but for its first
// functions, which say how far KASLR moved the kernel. Where they are hidden,
// Names.Ready says so, and Names.Learn can make up for it.
//
// An error wraps ErrAddressesHidden where kallsyms shows no addresses,
// ErrOtherKernel where the file is not of the running kernel, ErrNoSymbols
// where it holds none, and what opening it gave.
func (h Host) OpenNames(source string) (*Names, error) {
	var from naming
	var read time.Time
	switch source {
	case SymbolsNone:
		from = noNames{}
	case SymbolsKallsyms, "":
		l, err := h.openLive()
		if err != nil {
			return nil, err
		}
		from = l
	default:
		f, err := h.openSymbolFile(source)
		if err != nil {
			return nil, err
		}
		from, read = f, time.Now()
	}
	return newNames(from, read), nil
}

func newNames(from naming, read time.Time) *Names {
	return &Names{from: from, now: time.Now, read: read, asked: map[uint64]bool{}}
}

// Resolve names the function that an address lies in, or at least the module.
// Where neither is known only Location.Address is set.
func (n *Names) Resolve(addr uint64) record.Location {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.from.prepare(addr) {
		n.read = n.now()
	}
	if !n.from.knows(addr) && !n.asked[addr] && len(n.asked) < maxAsked {
		if now := n.now(); now.Sub(n.read) >= readAgain {
			n.asked[addr] = true
			n.read = now
			n.from.reload()
		}
	}
	return n.from.resolve(addr)
}

// Learn takes what the kernel itself calls an address, in the form of printk's
// %pS: tcp_v4_rcv+0x86/0xf60 or nft_do_chain+0x40e/0x8c0 [nf_tables], which may be
// cut anywhere. NET_DM's packet alerts bring such pairs. A symbol file learns
// from them how far KASLR moved the kernel, where kallsyms does not tell, and
// functions of modules, which it does not have. Other sources need none of it.
//
// An error wraps ErrOtherKernel: the kernel contradicts the file, whose names
// are not used any more. Every later call returns it, too.
func (n *Names) Learn(addr uint64, text string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.from.learn(addr, text)
}

// Ready is nil where addresses can be named. Else it says why not: an error
// that wraps ErrNotPlaced until Learn has heard enough, or ErrOtherKernel.
func (n *Names) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.from.ready()
}

// From says in one line where the names come from and, of a file, how far its
// addresses are from the kernel's and how that is known.
func (n *Names) From() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.from.from()
}

// Close lets go of the file. Names must not be used after it.
func (n *Names) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.from.close()
}

// noNames names nothing.
type noNames struct{}

func (noNames) resolve(addr uint64) record.Location {
	return record.Location{Address: record.Address(addr)}
}
func (noNames) prepare(uint64) bool        { return false }
func (noNames) knows(uint64) bool          { return true }
func (noNames) reload()                    {}
func (noNames) learn(uint64, string) error { return nil }
func (noNames) ready() error               { return nil }
func (noNames) from() string               { return SymbolsNone }
func (noNames) close() error               { return nil }
