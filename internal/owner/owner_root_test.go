//go:build root

package owner

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// listener opens a socket of this process.
func listener(t testing.TB) (*os.File, uint64) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(*net.TCPListener).File() // the process has it twice now
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return f, st.Ino
}

func TestOwnSocket(t *testing.T) {
	testkit.NeedRoot(t)
	f, inode := listener(t)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	const hostile = "a\n\x1b[2J\xff"
	if err := os.WriteFile("/proc/self/comm", []byte(hostile), 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile("/proc/self/comm", comm, 0); err != nil {
			t.Error(err)
		}
	}()
	// Empty where no hierarchy is mounted.
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	found, blind := Find([]uint64{inode})
	p := found[inode]
	if p.PID != os.Getpid() || p.Comm != hostile || p.Inode != inode || p.Others != 0 ||
		(p.Cgroup == "") != (len(cgroup) == 0) || len(blind) != 0 {
		t.Errorf("%+v, blind %+v", p, blind)
	}
	ns := record.NetNS{Inode: 7}
	if got, want := Fact(inode, ns), fmt.Sprintf("%s[%d]", hostile, os.Getpid()); got.Value != want || got.NetNS != ns || got.Fields["cgroup"] != p.Cgroup {
		t.Errorf("%+v, want %q", got, want)
	}

	// A child inherits the socket.
	child := exec.Command("/proc/self/exe", "-test.run=^TestWait$", "-test.v")
	child.Env = append(os.Environ(), wait+"=1")
	child.ExtraFiles = []*os.File{f}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	found, _ = Find([]uint64{inode})
	if p := found[inode]; p.Others != 1 || p.PID != min(os.Getpid(), child.Process.Pid) {
		t.Errorf("with a child %d of %d: %+v", child.Process.Pid, os.Getpid(), p)
	}
	in.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if found, _ := Find([]uint64{inode}); found[inode].Others != 0 {
		t.Errorf("without it: %+v", found[inode])
	}
}

const wait = "WHYDROP_TEST_WAIT"

// TestWait is what the child of TestOwnSocket does: it waits for its input to
// end. In any other process there is nothing to wait for.
func TestWait(t *testing.T) {
	if os.Getenv(wait) == "" {
		return
	}
	if n, err := os.Stdin.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
}

// Without capabilities the processes of others cannot be looked into.
func TestWithoutCapabilities(t *testing.T) {
	testkit.NeedRoot(t)
	_, inode := listener(t)
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine, as it is never unlocked.
		runtime.LockOSThread()
		none := [2]unix.CapUserData{}
		err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		if err == nil {
			found, blind := Find([]uint64{inode, 1})
			if found[inode].PID != os.Getpid() || len(found) != 1 {
				t.Errorf("own socket: %+v", found)
			}
			if len(blind) != 1 || !strings.Contains(blind[0].Fix, "CAP_SYS_PTRACE") {
				t.Errorf("blind: %+v", blind)
			}
			if f := Fact(1, record.NetNS{}); f.Missing == "" || f.Value != "" {
				t.Errorf("got %+v", f)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// BenchmarkFind looks for a socket that no process has, which takes longest.
func BenchmarkFind(b *testing.B) {
	for b.Loop() {
		if found, _ := Find([]uint64{1}); len(found) != 0 {
			b.Fatal(found)
		}
	}
	pids, err := numbers("/proc")
	if err != nil {
		b.Fatal(err)
	}
	files := 0
	for _, pid := range pids {
		entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		files += len(entries)
	}
	b.ReportMetric(float64(len(pids)), "processes")
	b.ReportMetric(float64(files), "files")
}
