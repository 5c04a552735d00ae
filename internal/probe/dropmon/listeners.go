package dropmon

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listener is a socket that has joined the monitor's group.
type listener struct {
	inode uint64
	// port is the socket's address: often, and not always, the number of the
	// process that made it (netlink_autobind of net/netlink/af_netlink.c).
	port uint32
}

// listeners lists the sockets that listen, but for one, which is the asker's own
// (0 is none). The family is in the initial network namespace only, so all of
// them are in the list of that namespace.
func listeners(own uint64) ([]listener, error) {
	f, err := os.Open("/proc/thread-self/net/netlink")
	if err != nil {
		return nil, fmt.Errorf("list sockets of netlink: %w", err)
	}
	defer f.Close()
	found, err := parseListeners(f)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(l listener) bool { return l.inode == own }), nil
}

// parseListeners reads /proc/net/netlink (netlink_native_seq_show of
// net/netlink/af_netlink.c): address, protocol, port, groups in hexadecimal, …,
// inode.
func parseListeners(r io.Reader) (found []listener, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		const generic = "16" // NETLINK_GENERIC
		if len(fields) < 10 || fields[1] != generic {
			continue
		}
		port, perr := strconv.ParseUint(fields[2], 10, 32)
		groups, gerr := strconv.ParseUint(fields[3], 16, 64)
		inode, ierr := strconv.ParseUint(fields[9], 10, 64)
		if perr != nil || gerr != nil || ierr != nil {
			return nil, fmt.Errorf("list sockets of netlink: line %q is not understood", lines.Text())
		}
		if groups&(1<<(group-1)) != 0 {
			found = append(found, listener{inode: inode, port: uint32(port)})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list sockets of netlink: %w", err)
	}
	return found, nil
}

// describe names the processes that have the sockets open, as in
// "dropwatch (pid 812)".
func describe(found []listener) string {
	links := map[string]bool{}
	for _, l := range found {
		links[fmt.Sprintf("socket:[%d]", l.inode)] = true
	}
	names := holders("/proc", links)
	for link, unseen := range links {
		if unseen {
			names = append(names, "a process that may not be seen from here ("+link+")")
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// holders looks through the open files of all processes for these links, and
// unmarks those that it finds.
func holders(proc string, links map[string]bool) (names []string) {
	// What may not be read belongs to others, or has just ended.
	processes, _ := os.ReadDir(proc)
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if holds(filepath.Join(proc, p.Name(), "fd"), links) {
			names = append(names, processName(proc, pid))
		}
	}
	return names
}

func holds(dir string, links map[string]bool) (found bool) {
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		link, err := os.Readlink(filepath.Join(dir, f.Name()))
		if err != nil {
			continue
		}
		if _, wanted := links[link]; wanted {
			links[link], found = false, true
		}
	}
	return found
}

// processName is the name of a process and its number.
func processName(proc string, pid int) string {
	name, err := fs.ReadFile(os.DirFS(proc), fmt.Sprintf("%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), pid)
}
