package fact

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// presence says whether a part of the kernel that may be a module is there.
// Asking such a part over netlink would load it.
type presence int

const (
	absent presence = iota
	present
	// unknown: not loaded as a module, and nothing says what is built in.
	unknown
)

// module looks for a part of the kernel by the name that it has as a module.
func (r *Reader) module(name string) (presence, error) {
	_, err := os.Stat(r.path("/sys/module/" + name))
	if err == nil {
		return present, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return unknown, err
	}
	if loads, err := r.loadsModules(); err != nil || !loads {
		return present, err // asking is harmless
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return unknown, fmt.Errorf("uname: %w", err)
	}
	f, err := os.Open(r.path("/lib/modules/" + unix.ByteSliceToString(uts.Release[:]) + "/modules.builtin"))
	if err != nil {
		return unknown, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if builtin(lines.Text(), name) {
			return present, nil
		}
	}
	return absent, lines.Err()
}

// builtin says whether a line of modules.builtin, as in
// kernel/net/ipv4/tcp_diag.ko, is that of a module. In names of files - and _
// are the same.
func builtin(line, name string) bool {
	line = line[strings.LastIndexByte(line, '/')+1:]
	return strings.ReplaceAll(strings.TrimSuffix(line, ".ko"), "-", "_") == name
}

// loadsModules says whether this kernel loads modules at all. Without
// /proc/modules it was built without them (kernel/module/procfs.c).
func (r *Reader) loadsModules() (bool, error) {
	_, err := os.Stat(r.path("/proc/modules"))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(r.path("/proc/self"))
		return false, err // without procfs nothing is known
	}
	if err != nil {
		return false, err
	}
	s, err := r.readFile("/proc/sys/kernel/modules_disabled")
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return strings.TrimSpace(s) != "1", err
}

// modules looks for several parts; the first that is not there counts.
func (r *Reader) modules(names ...string) (presence, error) {
	for _, name := range names {
		if p, err := r.module(name); p != present || err != nil {
			return p, err
		}
	}
	return present, nil
}
