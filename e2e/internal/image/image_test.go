package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestArchiveUnpacksByCpio compares what cpio(1) unpacks with what went in.
func TestArchiveUnpacksByCpio(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatal("cpio is not installed (apt-get install cpio; make test does)")
	}
	var b bytes.Buffer
	for _, name := range []string{"one", "two"} { // archives may follow each other
		w := NewWriter(&b)
		w.Dir("/tmp", 0o1777)
		w.File("/"+name+"/odd/file", 0o750, []byte("12345"))
		w.File(name+"/empty", 0o644, nil)
		w.Symlink(name+"/link", "odd/file")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	whole := b.Bytes()
	dir := t.TempDir()
	for len(whole) > 0 {
		// cpio stops at the end of the first archive; the kernel does not.
		end := bytes.Index(whole, []byte("TRAILER!!!\x00")) + len("TRAILER!!!\x00")
		end += -end & 3
		cmd := exec.Command(cpio, "-idm", "--quiet", "--no-absolute-filenames")
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(whole[:end])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cpio: %v\n%s", err, out)
		}
		whole = whole[end:]
	}
	out, err := exec.Command("find", dir, "-mindepth", "1", "-printf", "%P %y %m %s %l\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); f[1] == "d" {
			line = strings.Join(f[:3], " ") // the size of a directory is the filesystem's
		}
		got = append(got, strings.TrimSpace(line))
	}
	slices.Sort(got)
	want := []string{
		"one d 755", "one/empty f 644 0", "one/link l 777 8 odd/file", "one/odd d 755", "one/odd/file f 750 5",
		"tmp d 1777",
		"two d 755", "two/empty f 644 0", "two/link l 777 8 odd/file", "two/odd d 755", "two/odd/file f 750 5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("unpacked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, bytes.ErrTooLarge }

func TestWriteError(t *testing.T) {
	w := NewWriter(full{})
	w.File("a", 0o644, make([]byte, 2<<20))
	if err := w.Close(); err == nil {
		t.Error("no error from a full disk")
	}
}

// makeModule assembles an object file whose .modinfo has these strings.
func makeModule(t *testing.T, dir, name string, info ...string) {
	t.Helper()
	as := ".section .modinfo,\"a\"\n"
	for _, s := range info {
		as += ".asciz \"" + s + "\"\n"
	}
	path := filepath.Join(dir, name+".ko")
	cmd := exec.Command("as", "-o", path, "-")
	cmd.Stdin = strings.NewReader(as)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as: %v\n%s", err, out)
	}
}

func TestLoadOrder(t *testing.T) {
	if _, err := exec.LookPath("as"); err != nil {
		t.Fatal("as is not installed (apt-get install binutils; make test does)")
	}
	dir := t.TempDir()
	makeModule(t, dir, "nf_tables", "license=GPL", "depends=nfnetlink,libcrc32c", "alias=nft")
	makeModule(t, dir, "nfnetlink", "depends=")
	makeModule(t, dir, "libcrc32c", "softdep=pre: crc32c-intel crc32c post: later")
	makeModule(t, dir, "crc32c-intel", "depends=")
	makeModule(t, dir, "later")
	makeModule(t, dir, "veth", "depends=")
	makeModule(t, dir, "a", "depends=b")
	makeModule(t, dir, "b", "depends=a")
	makeModule(t, dir, "orphan", "depends=none")
	makeModule(t, dir, "needs_b2", "depends=b2")
	builtin := filepath.Join(dir, "modules.builtin")
	if err := os.WriteFile(builtin, []byte("kernel/net/built-in.ko\nkernel/net/b2.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ wanted, want, err string }{
		{"nf_tables veth built-in nfnetlink", "nfnetlink crc32c_intel libcrc32c nf_tables veth", ""},
		{"crc32c-intel", "crc32c_intel", ""},
		{"nf* b2", "nfnetlink crc32c_intel libcrc32c nf_tables", ""},
		{"needs_b2", "needs_b2", ""},
		{"veth nft_counter", "", "nft_counter"},
		{"veth x*", "", "x*"},
		{"a", "", "itself"},
		{"orphan", "", "no module none"},
	} {
		m, err := FindModules(dir, builtin)
		if err != nil {
			t.Fatal(err)
		}
		if !m.Has("nft-counter") && !m.Has("veth") || m.Has("none") {
			t.Error("Has does not know what there is")
		}
		order, err := m.Load(strings.Fields(tt.wanted))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.wanted, err, tt.err)
			}
			continue
		}
		var names []string
		for _, o := range order {
			names = append(names, o.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.wanted, got, err, tt.want)
		}
	}
}

func TestIndex(t *testing.T) {
	dep, alias := Index([]Module{
		{Name: "nfnetlink", Aliases: []string{"net-pf-16-proto-12"}},
		{Name: "nf_tables", Needs: []string{"crc32c", "nfnetlink"}, Aliases: []string{"nft", "nfnetlink-subsys-10"}},
	})
	if want := "nfnetlink.ko:\nnf_tables.ko: nfnetlink.ko crc32c.ko\n"; dep != want {
		t.Errorf("modules.dep is %q, want %q", dep, want)
	}
	if want := "alias net-pf-16-proto-12 nfnetlink\nalias nft nf_tables\nalias nfnetlink-subsys-10 nf_tables\n"; alias != want {
		t.Errorf("modules.alias is %q, want %q", alias, want)
	}
}

func FuzzModinfo(f *testing.F) {
	f.Add([]byte("license=GPL\x00depends=nfnetlink,libcrc32c\x00softdep=pre: crc32c post: x\x00\x00"))
	f.Add([]byte("depends=,a,,a\x00softdep=a b\x00alias=x\x00alias=x y\x00alias="))
	f.Fuzz(func(t *testing.T, info []byte) {
		hard, soft, aliases := modinfo(info)
		for _, name := range append(hard, soft...) {
			if name == "" || strings.ContainsAny(name, "-\x00") || !bytes.Contains(info, []byte(name[:1])) && name[0] != '_' {
				t.Errorf("name %q of %q", name, info)
			}
		}
		for _, a := range aliases {
			if a == "" || strings.ContainsAny(a, " \n") {
				t.Errorf("alias %q of %q cannot be a field of modules.alias", a, info)
			}
		}
	})
}
