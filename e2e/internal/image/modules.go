package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Module is a kernel module, ready for insmod.
type Module struct {
	Name string
	Data []byte
}

// Modules reads modules from a directory of .ko and .ko.xz files.
type Modules struct {
	paths map[string]string
	order []Module
	state map[string]bool // true: in order; false: on the way
}

// FindModules looks for modules in dir and below.
func FindModules(dir string) (*Modules, error) {
	m := &Modules{paths: map[string]string{}, state: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, isModule := strings.CutSuffix(strings.TrimSuffix(filepath.Base(path), ".xz"), ".ko")
		if err == nil && isModule && d.Type().IsRegular() {
			m.paths[normal(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for modules: %w", err)
	}
	return m, nil
}

// normal is the name that the kernel gives a module.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Load returns the wanted modules and all that they depend on, in the order in
// which they load. A wanted name that ends in ? may be missing: on some
// kernels it is not a module of its own.
func (m *Modules) Load(wanted []string) ([]Module, error) {
	for _, w := range wanted {
		name, optional := strings.CutSuffix(w, "?")
		if err := m.add(normal(name), optional); err != nil {
			return nil, err
		}
	}
	return m.order, nil
}

// add appends a module behind those that it depends on.
func (m *Modules) add(name string, optional bool) error {
	if done, seen := m.state[name]; done {
		return nil
	} else if seen {
		return fmt.Errorf("module %s depends on itself", name)
	}
	path := m.paths[name]
	if path == "" {
		if optional {
			return nil
		}
		return fmt.Errorf("the kernel's packages have no module %s", name)
	}
	m.state[name] = false
	data, err := readModule(path)
	if err != nil {
		return err
	}
	info, err := section(data)
	if err != nil {
		return fmt.Errorf("read module %s: %w", name, err)
	}
	hard, soft := dependencies(info)
	for _, d := range hard {
		if err := m.add(d, false); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	for _, d := range soft {
		if err := m.add(d, true); err != nil { // an alias, or built in
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	m.state[name] = true
	m.order = append(m.order, Module{name, data})
	return nil
}

func readModule(path string) ([]byte, error) {
	if !strings.HasSuffix(path, ".xz") {
		return os.ReadFile(path)
	}
	out, err := exec.Command("xz", "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", path, err)
	}
	return out, nil
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

// dependencies reads what a module needs loaded before it, from the strings
// of its .modinfo section: "depends=a,b" and "softdep=pre: a b post: c".
func dependencies(info []byte) (hard, soft []string) {
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
		}
	}
	return hard, soft
}

func appendName(list []string, name string) []string {
	name = normal(strings.TrimSpace(name))
	if name == "" || slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}
