//go:build root

package fact

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// inGroup says in which group of the test a child is to open a socket.
const groupVariable = "WHYDROP_TEST_CGROUP"

// unified is where the hierarchy of version 2 is mounted; a machine without
// one gets it for the time of the test.
func unified(t *testing.T) string {
	t.Helper()
	text, err := (&Reader{}).readFile("/proc/self/mountinfo")
	must(t, err)
	if m := parseMounts(text); m.v2.point != "" {
		return m.v2.point
	}
	dir := t.TempDir()
	must(t, unix.Mount("none", dir, "cgroup2", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// TestCgroupOfProcessAndSocket puts a child into a group of its own, and finds
// the group by the child's number and by its socket's.
func TestCgroupOfProcessAndSocket(t *testing.T) {
	if os.Getenv(groupVariable) != "" {
		fd := openSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}))
		fmt.Println(inodeOf(t, fd))
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	point := unified(t)
	group := fmt.Sprintf("/whydrop-test-%d", os.Getpid())
	must(t, os.Mkdir(point+group, 0o755))
	t.Cleanup(func() { must(t, os.Remove(point+group)) })
	// The limit is there where the controller of memory is, and not a v1 one.
	limited := os.WriteFile(point+"/cgroup.subtree_control", []byte("+memory"), 0) == nil
	if limited {
		must(t, os.WriteFile(point+group+"/memory.max", []byte("100000000"), 0))
	}
	testkit.InNetNS(t, func(*netlab.Namespace) {
		loadDiag(t)
		dir, err := os.Open(point + group)
		must(t, err)
		defer dir.Close()
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), groupVariable+"=yes")
		child.Stderr = os.Stderr
		stdin, err := child.StdinPipe()
		must(t, err)
		stdout, err := child.StdoutPipe()
		must(t, err)
		// It waits for the group before it opens anything: clone3 puts it there.
		child.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		must(t, child.Start())
		defer func() {
			stdin.Close()
			must(t, child.Wait())
		}()
		var inode uint64
		_, err = fmt.Fscan(stdout, &inode)
		must(t, err)
		got := facts(t, "cgroup", decimal(child.Process.Pid))
		if f := got[0]; f.Fields["v2_path"] != group {
			t.Errorf("process: %+v", got)
		}
		text, err := (&Reader{}).readFile("/proc/self/mountinfo")
		must(t, err)
		bySocket := (&Reader{}).Read(record.FactRequest{Kind: "cgroup", Arg: fmt.Sprintf("socket %d", inode)}, ns)
		if parseMounts(text).v1.point != "" {
			if len(bySocket) != 1 || !strings.Contains(bySocket[0].Missing, "its group is "+group+", but memory is controlled by version 1") {
				t.Errorf("socket: %+v", bySocket)
			}
			if got[0].Fields["version"] != "1" || got[0].Fields["current"] == "" || got[0].Name != "/"+strings.TrimPrefix(memoryGroup(t), "/") {
				t.Errorf("memory of version 1: %+v", got)
			}
			return
		}
		if len(bySocket) == 0 || bySocket[0].Name != group || bySocket[0].Missing != "" {
			t.Errorf("socket: %+v", bySocket)
		}
		if want := map[bool]string{true: "99999744", false: "max"}[limited]; got[0].Value != want || bySocket[0].Value != want { // whole pages
			t.Errorf("limit: %+v, %+v, want %s", got[0], bySocket[0], want)
		}
		if limited && (got[0].Fields["sock"] == "" || got[0].Fields["events_max"] != "0" || got[0].Fields["current"] == "0") {
			t.Errorf("%+v", got[0])
		}
	})
}

// memoryGroup is the test's own group of version 1.
func memoryGroup(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	v1, _ := parseMembership(string(text))
	return v1
}

// TestCgroupOfNothing: a process that is gone and a number that no socket has.
func TestCgroupOfNothing(t *testing.T) {
	unified(t)
	child := exec.Command("/proc/self/exe", "-test.run=^$")
	must(t, child.Run())
	if f := one(t, "cgroup", decimal(child.Process.Pid)); f.Value != None {
		t.Errorf("a process that is gone: %+v", f)
	}
	testkit.InNetNS(t, func(*netlab.Namespace) {
		if f := one(t, "cgroup", "socket 1"); f.Value != None {
			t.Errorf("no socket: %+v", f)
		}
	})
	if _, err := cgroupByID(filepath.Join(t.TempDir()), 1); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("not a hierarchy: %v", err)
	}
}

// TestMemoryIsTheKernels compares with the files that the numbers are from.
func TestMemoryIsTheKernels(t *testing.T) {
	got := facts(t, "memory", "")
	read := func(name string) []string {
		b, err := os.ReadFile("/proc/sys/" + name)
		must(t, err)
		return strings.Fields(string(b))
	}
	for name, setting := range map[string]string{"tcp": "net/ipv4/tcp_mem", "udp": "net/ipv4/udp_mem"} {
		f, want := named(t, got, name).Fields, read(setting)
		if f["low"] != want[0] || f["pressure"] != want[1] || f["limit"] != want[2] || f["pages"] == "" {
			t.Errorf("%s: %v, want %v", name, f, want)
		}
	}
	for name, setting := range map[string]string{"rmem": "net/core/rmem_max", "wmem": "net/core/wmem_max", "optmem": "net/core/optmem_max", "udp_rmem_min": "net/ipv4/udp_rmem_min"} {
		if f, want := named(t, got, name), read(setting); f.Value != want[0] {
			t.Errorf("%+v, want %v", f, want)
		}
	}
	if f := named(t, got, "host").Fields; f["min_free_kb"] != read("vm/min_free_kbytes")[0] || numOf(f, "total_kb") < numOf(f, "available_kb") || numOf(f, "available_kb") == 0 {
		t.Errorf("host: %v", f)
	}
}
