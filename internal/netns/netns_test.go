package netns

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tree makes a directory of names and a procfs out of plain files: a
// namespace is an inode, and any file has one.
func tree(t *testing.T) (dir, proc string) {
	t.Helper()
	dir, proc = filepath.Join(t.TempDir(), "netns"), t.TempDir()
	for _, f := range []string{
		filepath.Join(proc, "self/ns/net"), filepath.Join(proc, "1/ns/net"),
		filepath.Join(proc, "77/ns/net"), filepath.Join(dir, "blue"),
	} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, proc
}

func inodeOf(t *testing.T, path string) uint32 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

func TestNames(t *testing.T) {
	dir, proc := tree(t)
	n, err := newNames(dir, proc)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Name(inodeOf(t, filepath.Join(dir, "blue"))); got != "blue" {
		t.Errorf("name of blue = %q", got)
	}
	if got := n.Name(inodeOf(t, filepath.Join(proc, "1/ns/net"))); got != Host {
		t.Errorf("name of pid 1's = %q", got)
	}
	if got := n.Name(0); got != "" {
		t.Errorf("name of no namespace = %q", got)
	}
	green := filepath.Join(dir, "green")
	if err := os.WriteFile(green, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if n.Refresh() {
		t.Error("looked again within a second")
	}
	n.scanned = time.Now().Add(-2 * rescan)
	if !n.Refresh() || n.Name(inodeOf(t, green)) != "green" {
		t.Errorf("name of one made later = %q", n.Name(inodeOf(t, green)))
	}
	// Its inode is given to a namespace of another name.
	if err := os.Rename(green, filepath.Join(dir, "yellow")); err != nil {
		t.Fatal(err)
	}
	n.scanned = time.Now().Add(-2 * rescan)
	if got := inodeOf(t, filepath.Join(dir, "yellow")); !n.Refresh() || n.Name(got) != "yellow" {
		t.Errorf("name after a change = %q", n.Name(got))
	}
}

func TestNamesWithoutPID1(t *testing.T) {
	dir, proc := tree(t)
	if err := os.RemoveAll(filepath.Join(proc, "1")); err != nil {
		t.Fatal(err)
	}
	thread := filepath.Join(proc, "2")
	if err := os.CopyFS(thread, os.DirFS(filepath.Join(proc, "77"))); err != nil {
		t.Fatal(err)
	}
	comm := func(name string) *Names {
		t.Helper()
		if err := os.WriteFile(filepath.Join(thread, "comm"), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		n, err := newNames(dir, proc)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := comm("kthreadd"); n.HostError() != nil || n.Name(inodeOf(t, filepath.Join(thread, "ns/net"))) != Host {
		t.Errorf("the kernel's first thread does not tell the host's: %v", n.HostError())
	}
	n := comm("bash") // another PID namespace
	if n.HostError() == nil {
		t.Error("no error for the namespace of pid 1")
	}
	if got := n.Name(n.Own()); got != Own {
		t.Errorf("own name = %q, want %q", got, Own)
	}
	if _, err := n.Find(Host); err == nil {
		t.Error("host found")
	}
}

func TestFind(t *testing.T) {
	dir, proc := tree(t)
	n, err := newNames(dir, proc)
	if err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]uint32{
		"blue":       inodeOf(t, filepath.Join(dir, "blue")),
		"host":       inodeOf(t, filepath.Join(proc, "1/ns/net")),
		"own":        inodeOf(t, filepath.Join(proc, "self/ns/net")),
		"77":         inodeOf(t, filepath.Join(proc, "77/ns/net")),
		"4026531840": 4026531840,
		// That of the first namespace, since 6.18 (include/linux/proc_ns.h).
		"4026531833":       4026531833,
		"net:[4026532001]": 4026532001,
	} {
		if got, err := n.Find(arg); err != nil || got != want {
			t.Errorf("Find(%q) = %d, %v; want %d", arg, got, err, want)
		}
	}
	for _, arg := range []string{"red", "", ".", "..", "../proc", "78", "-1", strconv.Itoa(1 << 33), "net:[x]", "docker/4f1d0c5a9b3e"} {
		if got, err := n.Find(arg); err == nil {
			t.Errorf("Find(%q) = %d, want an error", arg, got)
		} else if !strings.Contains(err.Error(), "network namespace") {
			t.Errorf("Find(%q): error does not say of what: %v", arg, err)
		}
	}
}
