//go:build root

package netns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/netns/thread"
	"github.com/whydrop/whydrop/internal/testkit"
)

// wait marks a process started by the test, which waits for its input to end.
const wait = "WHYDROP_TEST_WAIT"

func TestMain(m *testing.M) {
	if os.Getenv(wait) != "" {
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// processIn starts a process in a network namespace of its own.
func processIn(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), wait+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// named gives a namespace a name as ip-netns(8) does, in a directory of its own.
func named(t *testing.T, ns *netlab.Namespace, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := ns.Do(func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func find(t *testing.T, list []Namespace, ino uint32) Namespace {
	t.Helper()
	i := slices.IndexFunc(list, func(ns Namespace) bool { return ns.Inode == ino })
	if i < 0 {
		t.Fatalf("no namespace %d in %+v", ino, list)
	}
	return list[i]
}

func hereIs(t *testing.T) uint32 {
	t.Helper()
	return inodeOf(t, "/proc/thread-self/ns/net")
}

func TestListAndEnter(t *testing.T) {
	testkit.NeedRoot(t)
	n, err := NewNames()
	if err != nil {
		t.Fatal(err)
	}
	n.Dir = t.TempDir()
	var blue, held *netlab.Namespace
	for _, ns := range []**netlab.Namespace{&blue, &held} {
		if *ns, err = netlab.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*ns).Close() })
	}
	bluePath := filepath.Join(n.Dir, "blue")
	named(t, blue, bluePath)
	if err := os.WriteFile(filepath.Join(n.Dir, "left"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// Nothing but the file that it is mounted on leads to a third one.
	mounted, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "a b")
	named(t, mounted, elsewhere)
	if err := mounted.Close(); err != nil {
		t.Fatal(err)
	}
	pid := processIn(t)
	pidPath := fmt.Sprintf("/proc/%d/ns/net", pid)

	before := openFiles(t)
	list, blind := n.List()
	// Some machines hide PID 1 even from root; all else must be seen.
	first, hidden := 1, 0
	if _, err := os.Readlink("/proc/1/ns/net"); errors.Is(err, fs.ErrPermission) {
		first, hidden = 2, 1
	}
	if len(blind) != hidden || hidden == 1 && !strings.Contains(blind[0].What, " 1 process") {
		t.Errorf("blind: %+v", blind)
	}
	if want := fmt.Sprintf("/proc/%d/ns/net", first); list[0].Name != Host || list[0].Path != want || list[0].PID != first {
		t.Errorf("first is %+v, want %s", list[0], want)
	}
	if ns := find(t, list, blue.Inode()); ns != (Namespace{Inode: blue.Inode(), Name: "blue", Path: bluePath}) {
		t.Errorf("named: %+v", ns)
	}
	if ns := find(t, list, mounted.Inode()); ns != (Namespace{Inode: mounted.Inode(), Path: elsewhere}) {
		t.Errorf("mounted elsewhere: %+v", ns)
	}
	ino := inodeOf(t, pidPath)
	// The group that the test runs in, if it tells anything, names it.
	if ns := find(t, list, ino); ns != (Namespace{Inode: ino, Name: n.Name(ino), Path: pidPath, PID: pid}) {
		t.Errorf("of a process: %+v", ns)
	}
	if ns := find(t, list, held.Inode()); ns.Name != "" || ns.PID != 0 || !strings.HasPrefix(ns.Path, "/proc/self/fd/") {
		t.Errorf("held: %+v", ns)
	}
	for i, ns := range list {
		if slices.ContainsFunc(list[:i], func(o Namespace) bool { return o.Inode == ns.Inode }) || ns.Name == "left" {
			t.Errorf("%+v should not be there", ns)
		}
		err := ns.Do(func() error {
			if got := hereIs(t); got != ns.Inode {
				t.Errorf("in namespace %d, want %+v", got, ns)
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errMoved) { // somebody's short life
			t.Error(err)
		}
	}
	if own := hereIs(t); own != n.Own() {
		t.Errorf("the test is now in %d", own)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d namespaces open, %d before", after, before)
	}
}

// openFiles counts the namespaces that this program holds open.
func openFiles(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && strings.HasPrefix(link, "net:") {
			n++
		}
	}
	return n
}

// Without capabilities the errors name the one that is missing.
func TestWithoutCapabilities(t *testing.T) {
	testkit.NeedRoot(t)
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	n, err := NewNames()
	if err != nil {
		t.Fatal(err)
	}
	list, _ := n.List()
	held := find(t, list, ns.Inode())
	err = thread.Do(func() error {
		none := [2]unix.CapUserData{}
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			return err
		}
		for path, want := range map[string]string{held.Path: "CAP_SYS_ADMIN", "/proc/1/ns/net": "CAP_SYS_PTRACE"} {
			if err := enter(path, 0); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("enter %s: error %v, want one with %s", path, err, want)
			}
		}
		if err := enter(ownPath, n.own); err != nil {
			t.Errorf("enter the own namespace: %v", err)
		}
		blindN, err := NewNames()
		if err != nil {
			return err
		}
		list, blind := blindN.List()
		if len(blind) != 2 || !strings.Contains(blind[1].Fix, "CAP_SYS_PTRACE") {
			t.Errorf("blind: %+v", blind)
		}
		if own := find(t, list, n.own); own.Name != Own {
			t.Errorf("own is %+v", own)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkList(b *testing.B) {
	n, err := NewNames()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if list, _ := n.List(); len(list) == 0 {
			b.Fatal("nothing found")
		}
	}
	pids, err := numbers("/proc")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(pids)), "ns/process")
	b.ReportMetric(float64(len(pids)), "processes")
}

func BenchmarkDo(b *testing.B) {
	ns, err := netlab.New()
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	n, err := NewNames()
	if err != nil {
		b.Fatal(err)
	}
	list, _ := n.List()
	i := slices.IndexFunc(list, func(l Namespace) bool { return l.Inode == ns.Inode() })
	for b.Loop() {
		if err := list[i].Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
