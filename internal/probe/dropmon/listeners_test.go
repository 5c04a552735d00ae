package dropmon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const netlinkTable = `sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   812        00000111 0        0        0     2        0        17013
0000000000000000 16  0          00000000 0        0        0     2        0        1022
0000000000000000 16  812        00000001 0        0        0     2        5        17042
0000000000000000 16  3221221523 00000003 0        0        0     2        0        17043
0000000000000000 16  900        00000002 0        0        0     2        0        17044
`

func TestParseListeners(t *testing.T) {
	got, err := parseListeners(strings.NewReader(netlinkTable))
	want := []listener{{17042, 812}, {17043, 3221221523}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, line := range []string{
		"0 16 x 00000001 0 0 0 2 0 1\n", "0 16 1 xyz 0 0 0 2 0 1\n", "0 16 1 00000001 0 0 0 2 0 -1\n",
	} {
		if got, err := parseListeners(strings.NewReader(netlinkTable + line)); err == nil {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestHolders(t *testing.T) {
	proc := t.TempDir()
	for pid, link := range map[string]string{"812": "socket:[17042]", "813": "socket:[1]", "self": "socket:[17043]"} {
		dir := filepath.Join(proc, pid, "fd")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link, filepath.Join(dir, "3")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(proc, "812/comm"), []byte("dropwatch\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	links := map[string]bool{"socket:[17042]": true, "socket:[17043]": true}
	if got := holders(proc, links); len(got) != 1 || got[0] != "dropwatch (pid 812)" {
		t.Errorf("%q", got)
	}
	if links["socket:[17042]"] || !links["socket:[17043]"] {
		t.Errorf("left: %v", links)
	}
	if got := processName(proc, 813); got != "pid 813" {
		t.Errorf("without a name: %q", got)
	}
}

// TestDescribe finds a file of this very process, and says so of one that no
// process has.
func TestDescribe(t *testing.T) {
	s, err := dialNetlink()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	inode, err := inodeOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	got := describe([]listener{{inode: inode}, {inode: 1 << 62}})
	for _, want := range []string{fmt.Sprintf("(pid %d)", os.Getpid()), "may not be seen from here (socket:[4611686018427387904])"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func FuzzListeners(f *testing.F) {
	f.Add(netlinkTable)
	f.Fuzz(func(t *testing.T, table string) {
		got, err := parseListeners(strings.NewReader(table))
		if n := strings.Count(table, "\n") + 1; err == nil && len(got) > n {
			t.Errorf("%d listeners in %d lines", len(got), n)
		}
	})
}
