package fact

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// sysfs is a view of /sys.
type sysfs struct {
	*os.Root
	mount int // -1 where it is not a mount of its own
}

func (s *sysfs) close() {
	s.Root.Close()
	if s.mount >= 0 {
		unix.Close(s.mount)
	}
}

// read reads a file of one line.
func (s *sysfs) read(name string) (string, error) {
	b, err := s.ReadFile(name)
	return strings.TrimSpace(string(b)), err
}

// list gives the names in a folder, sorted.
func (s *sysfs) list(dir string) ([]string, error) {
	f, err := s.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// sys opens the view of the calling thread's network namespace. /sys/class/net
// shows the namespace of whoever mounted it (fs/sysfs/mount.c), so for another
// one there is a mount of its own: it is in no place of the file system, nobody
// else sees it, and it goes when it is closed. That is possible since Linux 5.2
// and needs CAP_SYS_ADMIN. Where it is not, /sys will do if it shows the same
// devices.
func (r *Reader) sys() (*sysfs, error) {
	if r.root != "" {
		root, err := os.OpenRoot(r.path("/sys"))
		return &sysfs{Root: root, mount: -1}, err
	}
	own, err := mountSysfs()
	if err == nil {
		return own, nil
	}
	root, rootErr := os.OpenRoot("/sys")
	if rootErr != nil {
		return nil, errors.Join(err, rootErr)
	}
	here := &sysfs{Root: root, mount: -1}
	same, sameErr := here.same()
	if same {
		return here, nil
	}
	here.close()
	return nil, fmt.Errorf("see /sys of this network namespace: %w", errors.Join(kernelnet.NeedsCap(err, "CAP_SYS_ADMIN"), sameErr))
}

// mountSysfs makes a mount of sysfs that is not attached anywhere.
func mountSysfs() (*sysfs, error) {
	fd, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	root, err := os.OpenRoot("/proc/thread-self/fd/" + strconv.Itoa(mount))
	if err != nil {
		unix.Close(mount)
		return nil, err
	}
	return &sysfs{Root: root, mount: mount}, nil
}

// same says whether the devices are those of the calling thread's namespace,
// with their numbers and addresses.
func (s *sysfs) same() (bool, error) {
	names, err := s.list("class/net")
	if err != nil {
		return false, err
	}
	shown := map[string]bool{}
	for _, name := range names {
		// bonding_masters is a file among them.
		if index, err := s.read("class/net/" + name + "/ifindex"); err == nil {
			address, err := s.read("class/net/" + name + "/address")
			if err != nil {
				return false, err
			}
			shown[name+" "+index+" "+address] = true
		}
	}
	var there map[string]bool
	err = kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.RTM_NEWLINK, ifinfo(0), func() { there = map[string]bool{} }, func(b []byte) error {
		d, err := parseDevice(b)
		if err == nil {
			err = kernelnet.Attributes(b, unix.SizeofIfInfomsg, func(t int, v []byte) {
				if t == unix.IFLA_ADDRESS {
					there[d.name+" "+decimal(d.index)+" "+hardware(v)] = true
				}
			})
		}
		return err
	})
	if err != nil {
		return false, err
	}
	for d := range there {
		if !shown[d] {
			return false, nil
		}
	}
	return len(there) == len(shown), nil
}

// noDevice says whether an error means that a device is not in sysfs.
func noDevice(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }
