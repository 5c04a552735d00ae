package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// link makes a link like those of procfs.
func link(t *testing.T, path string, ino uint32) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("net:[%d]", ino), path); err != nil {
		t.Fatal(err)
	}
}

func TestList(t *testing.T) {
	dir, proc := tree(t)
	host, blue := filepath.Join(proc, "1/ns/net"), filepath.Join(dir, "blue")
	for pid, ino := range map[string]uint32{
		"9":    inodeOf(t, host),
		"10":   inodeOf(t, blue),
		"11":   inodeOf(t, blue),
		"200":  4026532001,
		"31":   4026532001,
		"1000": 4026532002,
	} {
		link(t, filepath.Join(proc, pid, "ns/net"), ino)
	}
	link(t, filepath.Join(proc, "self/fd/3"), 4026532002) // known already
	link(t, filepath.Join(proc, "self/fd/12"), 4026532004)
	link(t, filepath.Join(proc, "self/fd/4"), 4026532005)
	if err := os.Symlink("socket:[5]", filepath.Join(proc, "self/fd/5")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	n, err := newNames(dir, proc)
	if err != nil {
		t.Fatal(err)
	}
	n.names[4026532002] = "known"
	got, blind := n.List()
	path := func(s string) string { return filepath.Join(proc, s) }
	want := []Namespace{
		{Inode: inodeOf(t, host), Name: Host, Path: host, PID: 9},
		{Inode: inodeOf(t, blue), Name: "blue", Path: blue, PID: 10},
		{Inode: 4026532001, Path: path("31/ns/net"), PID: 31},
		{Inode: 4026532002, Name: "known", Path: path("1000/ns/net"), PID: 1000},
		{Inode: 4026532005, Path: path("self/fd/4")},
		{Inode: 4026532004, Path: path("self/fd/12")},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(blind) != 0 {
		t.Errorf("blind: %+v", blind)
	}
	// A file that is no namespace lies on another file system.
	n.dev++
	if got, _ := n.List(); len(got) != 6 || got[1].Path != path("10/ns/net") {
		t.Errorf("with a file that is no namespace: %+v", got)
	}
}

func TestListBlind(t *testing.T) {
	dir, proc := tree(t)
	n, err := newNames(dir, proc)
	if err != nil {
		t.Fatal(err)
	}
	n.Dir, n.Proc = filepath.Join(dir, "blue"), filepath.Join(dir, "none") // a file; nothing
	n.hostErr = os.ErrPermission
	got, blind := n.List()
	if len(got) != 0 {
		t.Errorf("found %+v", got)
	}
	var what []string
	for _, b := range blind {
		what = append(what, b.What)
		if b.Why == "" || (b.Fix != "") != strings.Contains(b.What, "pid 1") {
			t.Errorf("%+v", b)
		}
	}
	want := []string{
		"the network namespace of pid 1", "named network namespaces",
		"network namespaces of processes", "network namespaces held by this program",
	}
	if d := cmp.Diff(want, what); d != "" {
		t.Error(d)
	}
}

func TestParseLink(t *testing.T) {
	for s, want := range map[string]uint32{
		"net:[4026531840]": 4026531840, "net:[1]": 1, "net:[4294967296]": 0,
		"net:[]": 0, "net:[": 0, "": 0, "mnt:[5]": 0, "net:[5] ": 0, "net:[-5]": 0,
	} {
		if got, ok := parseLink(s); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v", s, got, ok)
		}
	}
}
