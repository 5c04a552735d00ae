package kernel

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// maxLearned bounds the functions of modules that are kept.
const maxLearned = 4096

// moduleSpans are where modules lie, and functions in them that the kernel
// named. A file of the kernel's symbols has neither.
type moduleSpans struct {
	spans []span
	// learned are ordered by address.
	learned []learned
}

// span is the memory from start to before end that a module's text has at most:
// /proc/modules tells the size of its text and data together.
type span struct {
	start, end uint64
	module     string
}

// learned is a function of a module.
type learned struct {
	start, end   uint64
	name, module string
}

// read takes the modules of /proc/modules. What it cannot read stays.
func (m *moduleSpans) read(h Host) {
	list, err := h.modules()
	if err != nil {
		return
	}
	var spans []span
	for name, mod := range list {
		if mod.base != 0 && mod.base+mod.size > mod.base {
			spans = append(spans, span{mod.base, mod.base + mod.size, name})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	// Since 6.4 the size counts data too, which lies elsewhere.
	for i := 1; i < len(spans); i++ {
		spans[i-1].end = min(spans[i-1].end, spans[i].start)
	}
	if !slices.Equal(spans, m.spans) {
		m.learned = nil // a module may have gone, and another lie there
	}
	m.spans = spans
}

// module returns the span that an address lies in.
func (m *moduleSpans) module(addr uint64) (span, bool) {
	i, exact := slices.BinarySearchFunc(m.spans, addr, func(s span, a uint64) int { return cmp.Compare(s.start, a) })
	if !exact {
		i--
	}
	if i < 0 || addr >= m.spans[i].end {
		return span{}, false
	}
	return m.spans[i], true
}

// has says whether the kernel itself named the function of an address. That it
// lies in a span is not enough: another module may have come since to where the
// span ends too late.
func (m *moduleSpans) has(addr uint64) bool {
	at, ok := m.find(addr)
	return ok && at.Symbol != ""
}

// find names the module that an address lies in, and the function where it was
// learned.
func (m *moduleSpans) find(addr uint64) (record.Location, bool) {
	at := record.Location{Address: record.Address(addr)}
	i, exact := slices.BinarySearchFunc(m.learned, addr, func(l learned, a uint64) int { return cmp.Compare(l.start, a) })
	if !exact {
		i--
	}
	if i >= 0 && addr < m.learned[i].end {
		l := m.learned[i]
		at.Symbol, at.Module, at.Offset = l.name, l.module, addr-l.start
		return at, true
	}
	s, ok := m.module(addr)
	if !ok {
		return at, false
	}
	at.Module, at.Offset = s.module, addr-s.start
	return at, true
}

// learn keeps a function of a module.
func (m *moduleSpans) learn(addr uint64, s symbolic) {
	start := addr - s.offset
	if isMade(s.module) || s.size == 0 || s.offset >= s.size || start > addr || start+s.size < start || len(m.learned) >= maxLearned {
		return
	}
	i, known := slices.BinarySearchFunc(m.learned, start, func(l learned, a uint64) int { return cmp.Compare(l.start, a) })
	if known {
		return
	}
	m.learned = slices.Insert(m.learned, i, learned{start, start + s.size, s.name, s.module})
}

// symbolic is an address in the kernel's words.
type symbolic struct {
	name         string
	offset, size uint64
	module       string
}

// maxSymbolic is how many bytes NET_DM sends of such a text
// (NET_DM_MAX_SYMBOL_LEN of net/core/drop_monitor.c is 40, with the final 0).
const maxSymbolic = 39

// parseSymbolic reads what printk's %pS prints, as far as NET_DM sends it. A text
// that was cut says too little, where the cut may have taken a part of the offset
// or the module.
func parseSymbolic(text string) (s symbolic, ok bool) {
	if s, ok = splitSymbolic(text); ok && s.module == "" && len(text) == maxSymbolic {
		return s, false // a module may have followed
	}
	return s, ok
}

// splitSymbolic reads what printk's %pS prints: name+0xoffset/0xsize [module]
// (sprint_symbol of kernel/kallsyms.c).
func splitSymbolic(text string) (s symbolic, ok bool) {
	name, rest, ok := strings.Cut(text, "+0x")
	if !ok || name == "" || len(text) > maxSymbolic+1024 {
		return s, false
	}
	offset, rest, ok := strings.Cut(rest, "/0x")
	if !ok {
		return s, false
	}
	size, module, inModule := strings.Cut(rest, " [")
	if inModule {
		if module, ok = strings.CutSuffix(module, "]"); !ok || module == "" {
			return s, false
		}
	}
	var err1, err2 error
	s = symbolic{name: name, module: module}
	s.offset, err1 = strconv.ParseUint(offset, 16, 64)
	s.size, err2 = strconv.ParseUint(size, 16, 64)
	return s, err1 == nil && err2 == nil
}
