package kernel

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
)

// sharedSymbols keeps the last table of symbols that a process read, and which
// modules there were then.
type sharedSymbols struct {
	host    Host
	mu      sync.Mutex
	table   *Symbols
	modules map[string]module
}

var shared sharedSymbols

// SharedSymbols is LoadSymbols of the running kernel, without reading again
// what this process has read already: that takes 45 ms, most of them the kernel's,
// which writes every line anew, and twenty times as long on an emulated machine.
// read says whether the table was read now; of another one only what Symbols.Knows
// is sure to be true still.
func SharedSymbols() (table *Symbols, read bool, err error) { return shared.get() }

func (s *sharedSymbols) get() (table *Symbols, read bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	modules, modulesErr := s.host.modules()
	if s.table != nil && modulesErr == nil && maps.Equal(modules, s.modules) {
		return s.table, false, nil
	}
	if s.table != nil && errors.Is(modulesErr, fs.ErrNotExist) && s.table.withoutModules() {
		return s.table, false, nil // a kernel without modules has no such file
	}
	if table, err = s.host.LoadSymbols(); err != nil {
		return nil, false, err
	}
	s.table, s.modules = table, modules
	return table, true, nil
}

// withoutModules says whether every function was built into the kernel or made
// by it.
func (s *Symbols) withoutModules() bool {
	return !slices.ContainsFunc(s.modules, func(m string) bool { return m != "" && !isMade(m) })
}

// isMade says whether kallsyms shows under the name of a module what the kernel
// compiles while it runs: BPF programs, trampolines of ftrace, slots of kprobes
// (kernel/kallsyms.c). It comes and goes with no trace in /proc/modules.
func isMade(module string) bool {
	return module == "bpf" || strings.HasPrefix(module, "__builtin__")
}
