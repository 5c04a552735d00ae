package kernel

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// ErrAddressesHidden says that /proc/kallsyms prints zeros for addresses.
var ErrAddressesHidden = errors.New("kernel addresses are hidden")

const (
	// sectionTail is how far behind the known end of a section an address may
	// lie and still be given, as a guess, to the section's last symbol: the
	// linker and the loader pad sections to pages.
	sectionTail = 4096
	// usualFunction and maxFunction bound functions whose end is not known:
	// hardly one is longer than the first, none but interpreters nears the
	// second.
	usualFunction = 4096
	maxFunction   = 64 << 10
	// modulePage is the least page of any kernel. The text of a module has
	// whole pages (module_memory_alloc of kernel/module/main.c, Linux 6.4;
	// debug_align before), and how many is told nowhere.
	modulePage = 4096
)

// symbol is the start of a function, or, with no name, the end of a section.
// The table holds one for each function of the kernel: 16 bytes.
type symbol struct {
	addr uint64
	// name is where the name starts in the table's text.
	name   uint32
	length uint16
	// module indexes the table's modules; 0 is the kernel itself.
	module uint16
}

func (s symbol) isEnd() bool { return s.length == 0 }

// Symbols is the kernel's table of functions. It is read once and never
// changes; it may be used by several goroutines at once.
type Symbols struct {
	// symbols are ordered by address, one for each address.
	symbols []symbol
	text    string
	modules []string
	// ends are where the text of each module ends at the latest; 0 where that is
	// not known.
	ends []uint64
}

// LoadSymbols reads /proc/kallsyms once, and /proc/modules for where modules
// end. An error wraps ErrAddressesHidden where this process may not see
// addresses, and says what would let it.
func (h Host) LoadSymbols() (*Symbols, error) {
	f, err := os.Open(h.path("/proc/kallsyms"))
	if err != nil {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	defer f.Close()
	s, err := ParseSymbols(f)
	if errors.Is(err, ErrAddressesHidden) {
		return nil, fmt.Errorf("read %s: %w: %s", f.Name(), err, h.showAddresses())
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	// Without /proc/modules (a kernel without modules, a hardened /proc) the
	// ends of modules are not known, and that is all.
	modules, _ := h.modules()
	for i, name := range s.modules {
		// The size counts data, too, and memory that was freed after init: it
		// passes the text's end (module_total_size of kernel/module/procfs.c).
		if m := modules[name]; m.base != 0 {
			s.ends[i] = m.base + m.size
		}
	}
	return s, nil
}

// showAddresses says what would make the kernel show addresses to this process
// (kallsyms_show_value of kernel/ksyms_common.c, earlier kernel/kallsyms.c).
func (h Host) showAddresses() string {
	if v, err := h.line("/proc/sys/kernel/kptr_restrict"); err == nil && v != "0" && v != "1" {
		return "kernel.kptr_restrict is " + v + ", which hides them from everyone: sysctl -w kernel.kptr_restrict=1"
	}
	return "run with CAP_SYSLOG"
}

// Len is the number of functions.
func (s *Symbols) Len() (n int) {
	for _, sym := range s.symbols {
		if !sym.isEnd() {
			n++
		}
	}
	return n
}

// Resolve names the function that an address lies in. Where no function is
// plausible only Location.Address is set. It does not allocate.
//
// A function ends where the next one of its section begins, and the last one
// where its section ends: at _etext or _einittext. Behind such an end, up to a
// page of padding is given to the function before it, as a guess
// (Location.Beyond). The last function of a module has the rest of its page for
// sure; what follows may be another module that came since, and is a guess up to
// 64 KiB. Where no end is known the function is taken to be of usual length, and
// what follows is such a guess, too.
func (s *Symbols) Resolve(addr uint64) record.Location {
	at := record.Location{Address: record.Address(addr)}
	i := s.before(addr)
	if i < 0 {
		return at
	}
	sym := s.symbols[i]
	end, guess := sym.addr, plus(sym.addr, sectionTail)
	if sym.isEnd() {
		if i == 0 || s.symbols[i-1].isEnd() || s.symbols[i-1].module != sym.module {
			return at
		}
		sym = s.symbols[i-1]
	} else {
		end, guess = s.end(i)
	}
	switch {
	case addr < end, addr == sym.addr:
	case addr < guess:
		at.Beyond = true
	default:
		return at
	}
	at.Symbol = s.name(sym)
	at.Module = s.modules[sym.module]
	at.Offset = addr - sym.addr
	return at
}

// Knows says whether the name of an address cannot have changed since the table
// was read, as long as the kernel has the same modules: it lies between two
// functions of the kernel itself or of one module. What lies elsewhere may
// belong to a program of [bpf] or to a module that came since.
func (s *Symbols) Knows(addr uint64) bool {
	i := s.before(addr)
	if i < 0 || i+1 >= len(s.symbols) || s.symbols[i].isEnd() {
		return false
	}
	this, next := s.symbols[i], s.symbols[i+1]
	return this.module == next.module && (this.module == 0 || follows(this, next)) && !isMade(s.modules[this.module])
}

// before returns the index of the last symbol at or below addr, or -1.
func (s *Symbols) before(addr uint64) int {
	lo, hi := 0, len(s.symbols)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.symbols[mid].addr <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// end returns where the i-th symbol ends, and up to where a guess gives it what
// follows.
func (s *Symbols) end(i int) (end, guess uint64) {
	sym := s.symbols[i]
	if i+1 < len(s.symbols) {
		next := s.symbols[i+1]
		// The kernel's own text is one piece.
		if next.module == sym.module && (sym.module == 0 || follows(sym, next)) {
			return next.addr, next.addr
		}
	}
	guess = plus(sym.addr, maxFunction)
	if latest := s.ends[sym.module]; latest != 0 {
		guess = min(guess, latest)
	}
	if sym.module == 0 || isMade(s.modules[sym.module]) {
		return plus(sym.addr, usualFunction), guess
	}
	return plus(sym.addr, modulePage-sym.addr%modulePage), guess
}

// follows says whether one symbol of a module ends where the next one begins.
// The text of a module may lie apart from its data (since 6.4), with other
// modules in between, and so may the programs of [bpf].
func follows(sym, next symbol) bool {
	return !next.isEnd() && next.addr-sym.addr <= maxFunction
}

// plus adds without passing the last address.
func plus(addr, n uint64) uint64 { return addr + min(n, math.MaxUint64-addr) }

func (s *Symbols) name(sym symbol) string {
	return s.text[sym.name : sym.name+uint32(sym.length)]
}

// Base strips what compilers append to the names of functions that they split
// or specialise: .constprop.N, .isra.N, .part.N, .cold, .llvm.N and their like.
func Base(symbol string) string {
	for {
		dot := strings.LastIndexByte(symbol, '.')
		if dot <= 0 {
			return symbol
		}
		word := symbol[dot+1:]
		if strings.Trim(word, "0123456789") == "" {
			end := dot
			if dot = strings.LastIndexByte(symbol[:end], '.'); dot <= 0 {
				return symbol
			}
			word = symbol[dot+1 : end]
		}
		switch word {
		case "constprop", "isra", "part", "cold", "llvm", "lto_priv", "localalias", "__uniq":
			symbol = symbol[:dot]
		default:
			return symbol
		}
	}
}
