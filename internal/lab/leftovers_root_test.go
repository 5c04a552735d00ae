//go:build root

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
)

// traces is what this process and the host have that a scenario could leave
// behind.
type traces struct {
	Links, Goroutines int
	Named             string   // namespaces with a name
	Foreign           []string // see foreignNamespaces
}

func look(t *testing.T) traces {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return slices.Contains(ofModules, l.Type()) })
	// The directory does not exist on a host without named namespaces.
	named, _ := os.ReadDir("/run/netns")
	return traces{
		Links:      len(links),
		Goroutines: runtime.NumGoroutine(),
		Named:      fmt.Sprint(named),
		Foreign:    foreignNamespaces(t, os.Getpid()),
	}
}

// ofModules are the kinds of devices of which a module makes some as soon as the
// kernel loads it, on the host and for good: ifb0 and ifb1, gre0.
var ofModules = []string{"ifb", "gre", "gretap", "erspan", "ipip", "sit", "ip6tnl", "vti", "dummy", "bond"}

// nothingLeft returns a function that fails the test if there is more then
// than now. Threads end a moment after their goroutine.
func nothingLeft(t *testing.T) (check func()) {
	t.Helper()
	var before, after traces
	eventually(t, "threads of earlier tests gone", func() bool {
		before = look(t)
		return len(before.Foreign) == 0
	})
	return func() {
		t.Helper()
		defer func() {
			if t.Failed() {
				t.Logf("before %+v, after %+v", before, after)
			}
		}()
		eventually(t, "everything as before", func() bool {
			after = look(t)
			return after.Links == before.Links && after.Named == before.Named &&
				after.Goroutines <= before.Goroutines && len(after.Foreign) == 0
		})
	}
}

// foreignNamespaces returns the paths at which a process has a network
// namespace other than the host's: its threads and its open files.
func foreignNamespaces(t *testing.T, pid int) []string {
	t.Helper()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, pattern := range []string{"task/*/ns/net", "fd/*"} {
		all, err := filepath.Glob(fmt.Sprintf("/proc/%d/%s", pid, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			// What has gone in the meantime is not left over.
			if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, "net:[") && target != own {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// nsHandles returns file handles of namespaces. A handle says whether its
// namespace still exists and does not keep it alive.
func nsHandles(paths []string) (handles []unix.FileHandle, err error) {
	for _, path := range paths {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue // a thread that has ended
		}
		if err != nil {
			return nil, err
		}
		handles = append(handles, h)
	}
	return handles, nil
}

// waitGone fails the test if the kernel does not remove the namespaces soon.
// It takes what nsHandles returned.
func waitGone(t *testing.T, handles []unix.FileHandle, err error) {
	t.Helper()
	testkit.SkipBefore(t, "6.18", "file handles of namespaces", err)
	nsfs, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer nsfs.Close()
	for _, h := range handles {
		eventually(t, "namespace removed", func() bool {
			fd, err := unix.OpenByHandleAt(int(nsfs.Fd()), h, unix.O_RDONLY|unix.O_CLOEXEC)
			if err == nil {
				unix.Close(fd)
				return false
			}
			if err != unix.ESTALE {
				t.Fatalf("open namespace by its handle: %v", err)
			}
			return true
		})
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
