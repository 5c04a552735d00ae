package owner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Sockets returns the inodes of the sockets that a process has open, in no order
// and as often as it has them open. An error says why its files may not be seen.
func Sockets(pid int) ([]uint64, error) { return sockets("/proc", pid) }

func sockets(proc string, pid int) ([]uint64, error) {
	dir, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "fd"))
	if err != nil {
		return nil, fmt.Errorf("find sockets of process %d: %w", pid, err)
	}
	defer dir.Close()
	var list []uint64
	var buf [64]byte // enough for socket:[…]
	for {
		names, err := dir.Readdirnames(512)
		for _, name := range names {
			// A file that was closed meanwhile is none of its sockets any more.
			if n, lerr := unix.Readlinkat(int(dir.Fd()), name, buf[:]); lerr == nil {
				if inode, ok := parseLink(buf[:n]); ok {
					list = append(list, inode)
				}
			} else if !gone(lerr) {
				return list, fmt.Errorf("find sockets of process %d: %w", pid, lerr)
			}
		}
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, fmt.Errorf("find sockets of process %d: %w", pid, err)
		}
	}
}
