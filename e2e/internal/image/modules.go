package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Module is a kernel module, ready for insmod.
type Module struct {
	Name string
	Data []byte
	// Needs are the modules to load before it, in this order.
	Needs []string
	// Aliases are the patterns by which the kernel asks for it.
	Aliases []string
}

// Modules reads modules from a directory of .ko files.
type Modules struct {
	paths   map[string]string
	builtIn map[string]bool
	order   []Module
	needs   map[string][]string // of modules in order
	open    map[string]bool     // on the way into order
}

// FindModules looks for modules in dir and below, and for the names of those
// that the kernel has built in in a file modules.builtin.
func FindModules(dir, builtin string) (*Modules, error) {
	m := &Modules{
		paths: map[string]string{}, builtIn: map[string]bool{},
		needs: map[string][]string{}, open: map[string]bool{},
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, isModule := strings.CutSuffix(filepath.Base(path), ".ko")
		if err == nil && isModule && d.Type().IsRegular() {
			m.paths[normal(name)] = path
		}
		return err
	})
	text, rerr := os.ReadFile(builtin)
	if err := errors.Join(err, rerr); err != nil {
		return nil, fmt.Errorf("look for modules: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name := filepath.Base(strings.TrimSpace(line))
		m.builtIn[normal(strings.TrimSuffix(name, ".ko"))] = true
	}
	return m, nil
}

// normal is the name that the kernel gives a module.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Has says whether there is a module of that name, or the kernel has it built in.
func (m *Modules) Has(name string) bool {
	_, ok := m.paths[normal(name)]
	return ok || m.builtIn[normal(name)]
}

// Load returns the modules whose names match the patterns of path.Match, and
// all that they depend on, in the order in which they load. Each pattern must
// match something, if only what the kernel has built in.
func (m *Modules) Load(patterns []string) ([]Module, error) {
	all := slices.Sorted(maps.Keys(m.paths))
	for _, p := range patterns {
		is := func(name string) bool {
			ok, err := path.Match(normal(p), name)
			return ok && err == nil
		}
		found := false
		for name := range m.builtIn {
			found = found || is(name)
		}
		for _, name := range all {
			if !is(name) {
				continue
			}
			found = true
			if err := m.add(name); err != nil {
				return nil, err
			}
		}
		if !found {
			return nil, fmt.Errorf("the kernel's packages have no module %s", p)
		}
	}
	return m.order, nil
}

// add appends a module behind those that it depends on.
func (m *Modules) add(name string) error {
	if _, done := m.needs[name]; done {
		return nil
	} else if m.open[name] {
		return fmt.Errorf("module %s depends on itself", name)
	}
	m.open[name] = true
	data, err := os.ReadFile(m.paths[name])
	if err != nil {
		return fmt.Errorf("read module: %w", err)
	}
	info, err := section(data)
	if err != nil {
		return fmt.Errorf("read module %s: %w", name, err)
	}
	hard, soft, aliases := modinfo(info)
	var needs []string
	for _, d := range append(hard, soft...) {
		if m.paths[d] == "" {
			if m.builtIn[d] || !slices.Contains(hard, d) { // or an alias
				continue
			}
			return fmt.Errorf("module %s: the kernel's packages have no module %s", name, d)
		}
		if err := m.add(d); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, n := range append(slices.Clone(m.needs[d]), d) {
			if !slices.Contains(needs, n) {
				needs = append(needs, n)
			}
		}
	}
	m.needs[name] = needs
	m.order = append(m.order, Module{name, data, needs, aliases})
	return nil
}

// section is the .modinfo section of a module.
func section(module []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no section .modinfo")
	}
	return s.Data()
}

// modinfo reads what a module needs loaded before it, and its aliases, from
// the strings of its .modinfo section: "depends=a,b", "softdep=pre: a b post: c"
// and "alias=net-pf-16-proto-12".
func modinfo(info []byte) (hard, soft, aliases []string) {
	for field := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				hard = appendName(hard, name)
			}
		case "softdep":
			before := false
			for _, word := range strings.Fields(value) {
				if strings.HasSuffix(word, ":") {
					before = word == "pre:"
				} else if before {
					soft = appendName(soft, word)
				}
			}
		case "alias":
			if value != "" && !strings.ContainsAny(value, " \t\n") {
				aliases = append(aliases, value)
			}
		}
	}
	return hard, soft, aliases
}

// Index is what modprobe reads beside the modules, modules.dep and
// modules.alias, for modules that lie in one directory.
func Index(modules []Module) (dep, alias string) {
	var d, a strings.Builder
	for _, m := range modules {
		d.WriteString(m.Name + ".ko:")
		for _, n := range slices.Backward(m.Needs) { // the first to load comes last
			d.WriteString(" " + n + ".ko")
		}
		d.WriteByte('\n')
		for _, pattern := range m.Aliases {
			fmt.Fprintf(&a, "alias %s %s\n", pattern, m.Name)
		}
	}
	return d.String(), a.String()
}

func appendName(list []string, name string) []string {
	name = normal(strings.TrimSpace(name))
	if name == "" || slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}
