package kernel

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

var errKallsyms = errors.New("not a table of symbols")

const (
	// usualSymbols and usualText are the room made at once for functions and
	// their names: a kernel without many modules has 60,000, of 21 bytes each.
	usualSymbols = 1 << 16
	usualText    = 3 << 19
	// localBit marks a static function while symbols are read. Names are
	// shorter (KSYM_NAME_LEN is 512 since 6.1).
	localBit = 1 << 15
	// maxText bounds the names of a table, in bytes: those of a kernel with
	// everything built in are 40 MiB.
	maxText = 128 << 20
	// paddingReach is how far before a function its padding may begin
	// (CONFIG_FUNCTION_PADDING_BYTES is at most 59).
	paddingReach = 64
)

// kallsymsParser collects the lines of a table of symbols.
type kallsymsParser struct {
	symbols []symbol
	text    strings.Builder
	modules []string
	numbers map[string]uint16
	// sorted is true while each line's address is at least that of the last.
	sorted bool
	// hidden counts functions at address 0.
	hidden int
	// noModules leaves out the functions of modules.
	noModules bool
	// marks are the names of the kernel itself whose addresses are wanted,
	// whatever is there.
	marks map[string]*mark
}

// mark is where a name was found, and how many times.
type mark struct {
	addr  uint64
	times int
}

// newParser makes room for so many symbols and bytes of names.
func newParser(symbols, text int) *kallsymsParser {
	p := &kallsymsParser{
		symbols: make([]symbol, 0, symbols),
		modules: []string{""},
		numbers: map[string]uint16{"": 0},
		sorted:  true,
	}
	p.text.Grow(text)
	return p
}

// ParseSymbols reads a table in the format of /proc/kallsyms, which is also
// that of System.map: address, type, name and maybe [module] on a line. An
// error wraps ErrAddressesHidden where every function's address is zero.
func ParseSymbols(r io.Reader) (*Symbols, error) {
	p := newParser(usualSymbols, usualText)
	if err := p.read(r); err != nil {
		return nil, err
	}
	return p.finish()
}

// finish makes a table of what was read.
func (p *kallsymsParser) finish() (*Symbols, error) {
	functions := 0
	for _, s := range p.symbols {
		if !s.isEnd() {
			functions++
		}
	}
	if functions == 0 && p.hidden > 0 {
		return nil, ErrAddressesHidden
	}
	if functions == 0 {
		return nil, fmt.Errorf("%w: no functions", errKallsyms)
	}
	return p.table(), nil
}

// read splits r into lines. The kernel gives a page at a time.
func (p *kallsymsParser) read(r io.Reader) error {
	buf := make([]byte, 64<<10)
	have, number := 0, 0
	for {
		n, err := r.Read(buf[have:])
		have += n
		rest := buf[:have]
		for {
			line, after, ok := bytes.Cut(rest, []byte{'\n'})
			if !ok {
				break
			}
			number++
			if err := p.line(line); err != nil {
				return fmt.Errorf("line %d: %w", number, err)
			}
			rest = after
		}
		have = copy(buf, rest)
		switch {
		case errors.Is(err, io.EOF):
			if err := p.line(buf[:have]); err != nil {
				return fmt.Errorf("line %d: %w", number+1, err)
			}
			return nil
		case err != nil:
			return err
		case have == len(buf):
			return fmt.Errorf("line %d: %w: longer than %d bytes", number+1, errKallsyms, len(buf))
		}
	}
}

// line takes one line: hexadecimal address, type, name, [module].
func (p *kallsymsParser) line(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	var addr uint64
	i := 0
	for ; i < len(line) && line[i] != ' '; i++ {
		digit := hexDigit(line[i])
		if digit > 15 || i == 16 {
			return fmt.Errorf("%w: bad address", errKallsyms)
		}
		addr = addr<<4 | uint64(digit)
	}
	// " T name"
	if i == 0 || len(line) < i+4 || line[i+2] != ' ' {
		return fmt.Errorf("%w: want address, type and name", errKallsyms)
	}
	kind, name := line[i+1], line[i+3:]
	var module []byte
	// A loop, for most names are too short for anything that must be prepared.
	for i, c := range name {
		if c == '\t' || c == ' ' {
			name, module = name[:i], bytes.Trim(name[i:], "\t []")
			break
		}
	}
	if len(name) == 0 || len(name) >= localBit {
		return fmt.Errorf("%w: name of %d bytes", errKallsyms, len(name))
	}
	return p.add(addr, kind, name, module)
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// add keeps functions, and the places where text ends. The types are those of
// nm(1): upper case for global symbols.
func (p *kallsymsParser) add(addr uint64, kind byte, name, module []byte) error {
	if len(module) > 0 && p.noModules {
		return nil
	}
	if len(p.marks) > 0 && len(module) == 0 {
		if m := p.marks[string(name)]; m != nil {
			m.addr = addr
			m.times++
		}
	}
	sym := symbol{addr: addr, length: uint16(len(name))}
	switch kind {
	case 'T', 'W':
	case 't', 'w':
		sym.length |= localBit
	case 'A', 'a', 'U', 'u', 'N', 'n', '?', '-':
		// Absolute values, undefined symbols and debugging have no place.
		return nil
	default:
		// Data ends the text before it.
		sym.length = 0
	}
	if isNoFunction(name) {
		return nil
	}
	// The linker script's ends have one type or another, by architecture.
	switch string(name) {
	case "_etext", "_einittext":
		sym.length = 0
	}
	if addr == 0 {
		if sym.length != 0 {
			p.hidden++
		}
		return nil
	}
	number, err := p.module(module)
	if err != nil {
		return err
	}
	sym.module = number
	if n := len(p.symbols); n > 0 {
		last := p.symbols[n-1]
		if last.addr > addr {
			p.sorted = false
		} else if p.sorted && number == 0 && last.isEnd() && sym.isEnd() {
			// Much of a kernel's table is data, and one end is enough.
			return nil
		}
	}
	if sym.length != 0 {
		if p.text.Len() > maxText {
			return fmt.Errorf("%w: more than %d MiB of names", errKallsyms, maxText>>20)
		}
		sym.name = uint32(p.text.Len())
		p.text.Write(name)
	}
	p.symbols = append(p.symbols, sym)
	return nil
}

func (p *kallsymsParser) module(name []byte) (uint16, error) {
	if len(name) == 0 {
		return 0, nil
	}
	if number, ok := p.numbers[string(name)]; ok {
		return number, nil
	}
	if len(p.modules) > math.MaxUint16 {
		return 0, fmt.Errorf("%w: more than %d modules", errKallsyms, math.MaxUint16)
	}
	number := uint16(len(p.modules))
	p.modules = append(p.modules, string(name))
	p.numbers[p.modules[number]] = number
	return number, nil
}

func (p *kallsymsParser) name(s symbol) string {
	return p.text.String()[s.name : s.name+uint32(s.length&^localBit)]
}

// table orders the symbols, keeps one for each address, and packs them.
func (p *kallsymsParser) table() *Symbols {
	if !p.sorted {
		// Modules come in no order of addresses.
		slices.SortFunc(p.symbols, func(a, b symbol) int {
			if c := cmp.Compare(a.addr, b.addr); c != 0 {
				return c
			}
			return cmp.Compare(a.name, b.name)
		})
	}
	// Chosen symbols overwrite those that were already looked at.
	kept := p.symbols[:0]
	for i := 0; i < len(p.symbols); {
		best, j := p.symbols[i], i+1
		for ; j < len(p.symbols) && p.symbols[j].addr == best.addr; j++ {
			if p.better(p.symbols[j], best) {
				best = p.symbols[j]
			}
		}
		i = j
		if p.isPadding(best, p.symbols[j:]) {
			continue
		}
		if n := len(kept); n > 0 && best.isEnd() && kept[n-1].isEnd() && kept[n-1].module == best.module {
			continue
		}
		best.length &^= localBit
		kept = append(kept, best)
	}
	return &Symbols{
		symbols: slices.Clone(kept),
		text:    p.text.String(),
		modules: p.modules,
		ends:    make([]uint64, len(p.modules)),
	}
}

// rank orders the kinds of symbols that may share an address, best first.
func (p *kallsymsParser) rank(s symbol) int {
	name := p.name(s)
	switch {
	case s.isEnd():
		return 2
	case strings.HasPrefix(name, clangPadding):
		return 4
	case isMarker(name):
		return 3
	case s.length&localBit != 0:
		return 1
	}
	return 0
}

// better says whether a is the better name of an address than b: a function
// before the end of a section, before a mark of the linker script, before
// padding; global before static; then the shorter and the alphabetically first
// name, so that memcpy wins over __memcpy and __pi_memcpy.
func (p *kallsymsParser) better(a, b symbol) bool {
	return cmp.Or(
		cmp.Compare(p.rank(a), p.rank(b)),
		cmp.Compare(a.length&^localBit, b.length&^localBit),
		strings.Compare(p.name(a), p.name(b)),
	) < 0
}

// isMarker says whether the linker script made the name, not a function
// (include/asm-generic/vmlinux.lds.h).
func isMarker(name string) bool {
	switch name {
	case "_text", "_stext", "_sinittext", "__pi__text",
		"__indirect_thunk_start", "__indirect_thunk_end": // until 6.5
		return true
	}
	return strings.HasSuffix(name, "_text_start") || strings.HasSuffix(name, "_text_end") ||
		strings.HasPrefix(name, "__start_") || strings.HasPrefix(name, "__stop_")
}

// isNoFunction says whether a symbol of text is none of a function: objtool's
// __pfx_ names the padding before a function (6.2) and makes up half of the
// table; mapping symbols of an ABI ($x, $d) and assemblers' local labels
// appear in modules of older kernels.
//
// Nothing runs in padding. An address in it is where a call that does not
// return would have returned to, and belongs to the function before.
func isNoFunction(name []byte) bool {
	return name[0] == '$' || bytes.HasPrefix(name, []byte("__pfx_")) || bytes.HasPrefix(name, []byte(".L"))
}

// clangPadding begins the names of the padding before functions on kernels
// with CONFIG_CFI_CLANG (6.1). Functions of CFI itself have it too.
const clangPadding = "__cfi_"

// isPadding says whether s is the padding before one of the symbols that
// follow.
func (p *kallsymsParser) isPadding(s symbol, following []symbol) bool {
	function, ok := strings.CutPrefix(p.name(s), clangPadding)
	if !ok {
		return false
	}
	for _, f := range following {
		if f.addr-s.addr > paddingReach {
			return false
		}
		if p.name(f) == function {
			return true
		}
	}
	return false
}

// module is a line of /proc/modules.
type module struct {
	// base and size are in bytes; base is 0 where addresses are hidden. Since
	// 6.4 a module's text and data lie apart: base is that of its text and
	// size that of all of it.
	base, size uint64
}

func (h Host) modules() (map[string]module, error) {
	b, err := os.ReadFile(h.path("/proc/modules"))
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	m, err := parseModules(b)
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	return m, nil
}

// parseModules reads /proc/modules: name, size, uses, users, state, base
// (m_show of kernel/module/procfs.c).
func parseModules(b []byte) (map[string]module, error) {
	modules := map[string]module{}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 6 {
			return nil, fmt.Errorf("module %q: %d columns, want 6", f[0], len(f))
		}
		size, err := strconv.ParseUint(string(f[1]), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("module %q: size: %w", f[0], err)
		}
		base, err := strconv.ParseUint(string(f[5]), 0, 64)
		if err != nil {
			return nil, fmt.Errorf("module %q: address: %w", f[0], err)
		}
		modules[string(f[0])] = module{base: base, size: size}
	}
	return modules, nil
}
