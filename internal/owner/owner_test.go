package owner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

// process adds a process with open files to a procfs made of plain files.
func process(t *testing.T, proc string, pid int, comm, cgroup string, files ...string) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"comm": comm, "cgroup": cgroup} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range files {
		if err := os.Symlink(f, filepath.Join(dir, "fd", strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
}

func socket(inode uint64) string { return fmt.Sprintf("socket:[%d]", inode) }

// machine is a procfs with a server of three processes that share a socket.
func machine(t *testing.T) string {
	t.Helper()
	proc := t.TempDir()
	process(t, proc, 9, "web\n", "0::/web.service\n", "/dev/null", socket(70), socket(70), socket(71))
	process(t, proc, 10, "web\n", "0::/web.service\n", socket(70), "pipe:[72]", strings.Repeat("/long", 50))
	process(t, proc, 100, "web\n", "0::/web.service\n", socket(70), socket(70))
	process(t, proc, 20, "ev\nil\n\n", "1:cpu:/docker/x\n", socket(72))
	return proc
}

func TestFind(t *testing.T) {
	found, blind := find(machine(t), []uint64{70, 71, 72, 73, 0, 70})
	want := map[uint64]Process{
		70: {PID: 9, Comm: "web", Cgroup: "/web.service", Inode: 70, Others: 2},
		71: {PID: 9, Comm: "web", Cgroup: "/web.service", Inode: 71},
		72: {PID: 20, Comm: "ev\nil\n", Cgroup: "/docker/x", Inode: 72},
	}
	if d := gocmp.Diff(want, found); d != "" || len(blind) != 0 {
		t.Errorf("%s blind %+v", d, blind)
	}
	if s := found[72].String(); s != "ev\nil\n[20]" {
		t.Errorf("%q", s)
	}
	for _, none := range [][]uint64{nil, {0}, {99}} {
		if found, blind := find(machine(t), none); len(found) != 0 || len(blind) != 0 {
			t.Errorf("%v: %v, %v", none, found, blind)
		}
	}
}

// A look ends some way behind the last socket that was wanted.
func TestEnds(t *testing.T) {
	proc := machine(t)
	s := scan{proc: proc, wanted: map[uint64]*Process{70: {}}, last: map[uint64]int{}, more: 4}
	if err := s.run(); err != nil || s.found != 1 || s.wanted[70].Others != 1 || s.more > 0 || !s.done() {
		t.Errorf("%+v, %v", s, err)
	}
	s = scan{proc: proc, wanted: map[uint64]*Process{70: {}, 99: {}}, last: map[uint64]int{}, more: 1}
	if err := s.run(); err != nil || s.wanted[70].Others != 2 {
		t.Errorf("ended before the last: %+v, %v", s, err)
	}
}

func TestBlind(t *testing.T) {
	proc := machine(t)
	// A file in the place of a folder is an error like any other.
	if err := os.MkdirAll(filepath.Join(proc, "5"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "5/fd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(proc, "6"), 0o755); err != nil { // has ended
		t.Fatal(err)
	}
	if _, blind := find(proc, []uint64{70}); len(blind) != 0 {
		t.Errorf("all found, but blind: %+v", blind)
	}
	found, blind := find(proc, []uint64{70, 99})
	if len(found) != 1 || len(blind) != 1 || blind[0].What != "the sockets of 1 process(es)" || blind[0].Why == "" || blind[0].Fix != "" {
		t.Errorf("%+v, %+v", found, blind)
	}
	if _, blind := find(filepath.Join(proc, "none"), []uint64{70}); len(blind) != 1 {
		t.Errorf("without procfs: %+v", blind)
	}
}

func TestFacts(t *testing.T) {
	proc := machine(t)
	ns := record.NetNS{Inode: 4026532000, Name: "blue"}
	base := func(arg string) record.Fact {
		return record.Fact{Kind: "owner", Request: arg, Name: arg, NetNS: ns, Source: "/proc/PID/fd", Command: "ss -aenp | grep -w ino:" + arg}
	}
	none, web := base("99"), base("70")
	none.Value = "none"
	web.Value, web.Source = "web[9]", "/proc/9/fd"
	web.Fields = map[string]string{"pid": "9", "comm": "web", "cgroup": "/web.service"}
	if d := gocmp.Diff([]record.Fact{none, web}, facts(proc, []uint64{99, 70}, ns)); d != "" {
		t.Error(d)
	}
	if f := facts(filepath.Join(proc, "none"), []uint64{70}, ns)[0]; f.Missing == "" || f.Value != "" {
		t.Errorf("without procfs: %+v", f)
	}
}

func TestParseLink(t *testing.T) {
	for s, want := range map[string]uint64{
		"socket:[4242]": 4242, "socket:[18446744073709551615]": 1<<64 - 1, "socket:[18446744073709551616]": 0,
		"socket:[": 0, "socket:[]": 0, "socket:[5": 0, "": 0, "pipe:[5]": 0, "socket:[5]x": 0, "socket:[-5]": 0,
	} {
		if got, ok := parseLink([]byte(s)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v", s, got, ok)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	for s, want := range map[string]string{
		"0::/system.slice/sshd.service\n":                  "/system.slice/sshd.service",
		"12:cpu:/a\n1:name=systemd:/b\n0::/user.slice/c\n": "/user.slice/c",
		"12:cpu:/\n4:memory:/docker/x\n0::/\n":             "/docker/x",
		"12:cpu:/docker/x\n4:memory:/docker/y\n":           "/docker/x",
		"0::/a:b\n":                                        "/a:b", "0::/\n": "/", "": "", "junk\n": "",
	} {
		if got := parseCgroup(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("socket:[4242]")
	f.Add("12:cpu:/a\n0::/b\n")
	f.Fuzz(func(t *testing.T, s string) {
		if inode, ok := parseLink([]byte(s)); ok && !strings.Contains(s, strings.TrimLeft(strconv.FormatUint(inode, 10), "0")) {
			t.Errorf("%q: %d", s, inode)
		}
		if got := parseCgroup(s); !strings.Contains(s, got) {
			t.Errorf("%q: %q", s, got)
		}
	})
}

func TestGone(t *testing.T) {
	if !gone(&os.PathError{Err: syscall.ESRCH}) || !gone(os.ErrNotExist) || gone(errors.New("other")) || gone(os.ErrPermission) {
		t.Error("a process that has ended is not told from one that is hidden")
	}
}
