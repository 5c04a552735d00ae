package kernelnet

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Modules says which parts of the kernel that may be modules are there. A
// question to one that is not would load it.
type Modules struct {
	root string
	// builtin gives the names of what is built in, with _ for -. It does not
	// change while the kernel runs.
	builtin func() (map[string]bool, error)
}

// NewModules looks at files below root; empty is the live system.
func NewModules(root string) *Modules {
	m := &Modules{root: root}
	m.builtin = sync.OnceValues(m.readBuiltin)
	return m
}

func (m *Modules) path(path string) string { return filepath.Join("/", m.root, path) }

// Has says whether each of the parts is there, by the names that they have as
// modules. An error says that it cannot be known.
func (m *Modules) Has(names ...string) (bool, error) {
	for _, name := range names {
		ok, err := m.hasOne(name)
		if err != nil {
			return false, fmt.Errorf("tell whether %s is there without loading it: %w", name, err)
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

func (m *Modules) hasOne(name string) (bool, error) {
	_, err := os.Stat(m.path("/sys/module/" + name))
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// What is built in and has no parameter has no folder there
	// (kernel/params.c, param_sysfs_builtin).
	if loads, err := m.Loads(); err != nil || !loads {
		return true, err // nothing can be loaded by asking
	}
	builtin, err := m.builtin()
	return builtin[name], err
}

// Loads says whether this kernel loads modules at all. Without /proc/modules it
// was built without them (kernel/module/procfs.c).
func (m *Modules) Loads() (bool, error) {
	_, err := os.Stat(m.path("/proc/modules"))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(m.path("/proc/self"))
		return false, err // without procfs nothing is known
	}
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile(m.path("/proc/sys/kernel/modules_disabled"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return strings.TrimSpace(string(b)) != "1", err
}

// readBuiltin reads modules.builtin, whose lines are paths such as
// kernel/net/netfilter/nf_tables.ko.
func (m *Modules) readBuiltin() (map[string]bool, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	f, err := os.Open(m.path("/lib/modules/" + unix.ByteSliceToString(uts.Release[:]) + "/modules.builtin"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	builtin := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name := strings.TrimSuffix(filepath.Base(lines.Text()), ".ko")
		builtin[strings.ReplaceAll(name, "-", "_")] = true
	}
	return builtin, lines.Err()
}
