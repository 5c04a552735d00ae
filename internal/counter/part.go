package counter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// parts says which parts of the kernel that may be modules are there. A
// question to one that is not would load it.
type parts struct {
	// root is put before the paths of files; empty is the live system.
	root string
	// builtin gives the names of what is built in, with _ for -. It does not
	// change while the kernel runs.
	builtin func() (map[string]bool, error)
}

// live are the parts of this kernel.
var live = newParts("")

func newParts(root string) *parts {
	p := &parts{root: root}
	p.builtin = sync.OnceValues(p.readBuiltin)
	return p
}

func (p *parts) path(path string) string { return filepath.Join("/", p.root, path) }

// has says whether each of the parts is there, by the names that they have as
// modules. An error says that it cannot be known.
func (p *parts) has(names ...string) (bool, error) {
	for _, name := range names {
		if ok, err := p.hasOne(name); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (p *parts) hasOne(name string) (bool, error) {
	_, err := os.Stat(p.path("/sys/module/" + name))
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// What is built in and has no parameter has no folder there
	// (kernel/params.c, param_sysfs_builtin).
	if loads, err := p.loads(); err != nil || !loads {
		return err == nil, err // nothing can be loaded by asking
	}
	builtin, err := p.builtin()
	if err != nil {
		return false, fmt.Errorf("tell whether %s is there without loading it: %w", name, err)
	}
	return builtin[name], nil
}

// loads says whether this kernel loads modules at all. Without /proc/modules
// it was built without them (kernel/module/procfs.c).
func (p *parts) loads() (bool, error) {
	_, err := os.Stat(p.path("/proc/modules"))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(p.path("/proc/self"))
		return false, err // without procfs nothing is known
	}
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile(p.path("/proc/sys/kernel/modules_disabled"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return strings.TrimSpace(string(b)) != "1", err
}

// readBuiltin reads modules.builtin, whose lines are paths such as
// kernel/net/netfilter/nf_tables.ko.
func (p *parts) readBuiltin() (map[string]bool, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	f, err := os.Open(p.path("/lib/modules/" + unix.ByteSliceToString(uts.Release[:]) + "/modules.builtin"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	builtin := map[string]bool{}
	lines := bufio.NewScanner(io.LimitReader(f, maxFile))
	for lines.Scan() {
		name := strings.TrimSuffix(filepath.Base(lines.Text()), ".ko")
		builtin[strings.ReplaceAll(name, "-", "_")] = true
	}
	return builtin, lines.Err()
}
