package netns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const (
	id  = "4f1d0c5a9b3e7f2816d5c4b3a291807f6e5d4c3b2a1908f7e6d5c4b3a2918070"
	uid = "3f2a1b4c-5d6e-4f70-8192-a3b4c5d6e7f8"
)

// groupNames are texts of /proc/PID/cgroup and the name that they give.
var groupNames = map[string]string{
	"": "",
	// Nothing but the root, as in a container that has a hierarchy of its own.
	"0::/\n":              "",
	"0::/../../init\n":    "",
	"12:cpu:/\n0::/\nx\n": "",
	// Engines of containers, with groups made by systemd and by themselves.
	"0::/system.slice/docker-" + id + ".scope\n":                            "docker/4f1d0c5a9b3e",
	"12:pids:/docker/" + id + "\n11:cpu:/docker/" + id + "\n":               "docker/4f1d0c5a9b3e",
	"0::/machine.slice/libpod-" + id + ".scope/container\n":                 "libpod/4f1d0c5a9b3e",
	"0::/system.slice/nerdctl-" + id + ".scope":                             "nerdctl/4f1d0c5a9b3e",
	"0::/ecs/0123456789abcdef/" + id + "\n":                                 "0123456789abcdef/4f1d0c5a9b3e",
	"0::/a b/" + id + "\n":                                                  "container/4f1d0c5a9b3e",
	"0::/docker/" + id[:63] + "\n":                                          "",
	"0::/docker/" + strings.ToUpper(id) + "\n":                              "",
	"0::/system.slice/docker-" + id + ".scope/system.slice/nginx.service\n": "docker/4f1d0c5a9b3e",
	"0::/docker/" + id + " (deleted)\n":                                     "docker/4f1d0c5a9b3e",
	// Pods: all containers of one share its namespace.
	"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") +
		".slice/cri-containerd-" + id + ".scope\n": "pod/3f2a1b4c",
	"0::/kubepods/besteffort/pod" + uid + "/" + id + "\n":                   "pod/3f2a1b4c",
	"0::/kubepods/pod" + strings.ReplaceAll(uid, "-", "") + "/crio-" + id:   "pod/3f2a1b4c",
	"0::/kubepods/pod" + uid + "\n":                                         "pod/3f2a1b4c",
	"0::/kubepods.slice/kubepods-pod" + uid[:20] + ".slice/x\n":             "",
	"0::/docker/" + id + "/kubelet/kubepods/pod" + uid + "/" + id + "\n":    "pod/3f2a1b4c", // kind
	"0::/kubepods/besteffort/pod" + uid + "/" + id + "/docker/" + id + "\n": "docker/4f1d0c5a9b3e",
	"3:cpu:/\n2:name=systemd:/kubepods/pod" + uid + "/x\n0::/a.service\n":   "pod/3f2a1b4c",
	"0::/lxc.payload.web/system.slice/nginx.service\n":                      "lxc/web",
	"5:memory:/lxc/db\n": "lxc/db",
	"0::/lxc/\n":         "",
	"0::/machine.slice/machine-web.scope/payload\n":                    "machine/web",
	"0::/machine.slice/systemd-nspawn@db.service/payload\n":            "machine/db",
	"0::/machine.slice/systemd-nspawn@.service\n":                      "unit/systemd-nspawn@.service",
	"0::/system.slice/nginx.service\n":                                 "unit/nginx.service",
	"0::/user.slice/user-0.slice/user@0.service/app.slice/a.service\n": "unit/a.service",
	"0::/user.slice/user-0.slice/user@0.service/init.scope\n":          "",
	"0::/user.slice/user-0.slice/session-3.scope\n":                    "",
	"9:cpu:/\n1:name=systemd:/system.slice/a.service\n0::/b.service\n": "unit/a.service",
	"0::/system.slice/vpn@a:b.service\n":                               "unit/vpn@a:b.service",
	"0::/system.slice/" + strings.Repeat("x", 200) + ".service\n":      "unit/" + strings.Repeat("x", maxGroupName-5),
	"0::/system.slice/a\xff\x1b.service\n":                             "unit/a?\x1b.service",
	"garbage":                                                          "",
	"0:":                                                               "",
	"0::" + strings.Repeat("/", 10000):                                 "",
}

func TestGroupName(t *testing.T) {
	for text, want := range groupNames {
		if got := groupName(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A name has a slash, which no name under /run/netns has, and fits into a line.
func FuzzGroupName(f *testing.F) {
	for text := range groupNames {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := groupName(text)
		if got == "" {
			return
		}
		kind, name, ok := strings.Cut(got, "/")
		// A byte that is no UTF-8 becomes one that is.
		if !ok || kind == "" || name == "" || strings.Contains(name, "/") || len(got) > maxGroupName || !utf8.ValidString(got) {
			t.Errorf("%q: %q", text, got)
		}
	})
}

// Namespaces without a name are called after what lives in them, and keep what
// they are called; the same name twice is told apart.
func TestCalledAfterGroups(t *testing.T) {
	dir, proc := tree(t)
	groups := map[string]string{
		"31": "0::/docker/" + id + "\n", "32": "0::/system.slice/a.service\n",
		"33": "0::/system.slice/a.service\n", "34": "0::/\n", "9": "0::/system.slice/b.service\n",
	}
	spaces := map[string]uint32{"31": 4026532001, "32": 4026532002, "33": 4026532003, "34": 4026532004, "9": inodeOf(t, filepath.Join(dir, "blue"))}
	for pid, ino := range spaces {
		link(t, filepath.Join(proc, pid, "ns/net"), ino)
		if err := os.WriteFile(filepath.Join(proc, pid, "cgroup"), []byte(groups[pid]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n, err := newNames(dir, proc)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Name(4026532003); got != "" {
		t.Errorf("before the processes were looked at: %q", got)
	}
	named := func() map[uint32]string {
		list, _ := n.List()
		m := map[uint32]string{}
		for _, ns := range list {
			if ns.Name != n.Name(ns.Inode) {
				t.Errorf("%d is %q in the list and %q else", ns.Inode, ns.Name, n.Name(ns.Inode))
			}
			m[ns.Inode] = ns.Name
		}
		return m
	}
	want := map[uint32]string{
		n.host: Host, spaces["9"]: "blue", 4026532001: "docker/4f1d0c5a9b3e",
		4026532002: "unit/a.service", 4026532003: "unit/a.service:33", 4026532004: "",
	}
	if d := cmp.Diff(want, named()); d != "" {
		t.Error(d)
	}
	for name, ino := range map[string]uint32{"docker/4f1d0c5a9b3e": 4026532001, "unit/a.service:33": 4026532003} {
		if got, err := n.Find(name); err != nil || got != ino {
			t.Errorf("Find(%q) = %d, %v", name, got, err)
		}
	}
	if got, err := n.Find("unit/none.service"); err == nil || !strings.Contains(err.Error(), "container, pod or unit") {
		t.Errorf("a unit that is not there: %d, %v", got, err)
	}
	// The first of the two goes, and a third comes that is listed before.
	if err := os.RemoveAll(filepath.Join(proc, "32")); err != nil {
		t.Fatal(err)
	}
	link(t, filepath.Join(proc, "2/ns/net"), 4026532005)
	if err := os.WriteFile(filepath.Join(proc, "2/cgroup"), []byte(groups["33"]), 0o644); err != nil {
		t.Fatal(err)
	}
	delete(want, 4026532002)
	want[4026532005] = "unit/a.service"
	if d := cmp.Diff(want, named()); d != "" {
		t.Error(d)
	}
}

// A namespace that turns up between two looks is looked for once.
func TestRefreshLooksForNames(t *testing.T) {
	dir, proc := tree(t)
	n, err := newNames(dir, proc)
	if err != nil {
		t.Fatal(err)
	}
	const ino = 4026532001
	link(t, filepath.Join(proc, "31/ns/net"), ino)
	if err := os.WriteFile(filepath.Join(proc, "31/cgroup"), []byte("0::/a.service\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	later := func() bool {
		n.scanned = n.scanned.Add(-2 * rescan)
		return n.Refresh()
	}
	if later() || n.groups != nil {
		t.Error("nobody has asked, and the processes were looked at")
	}
	if n.Name(ino) != "" || !later() || n.Name(ino) != "unit/a.service" {
		t.Errorf("after somebody asked: %q", n.Name(ino))
	}
	if n.Name(4026532002) != "" || later() || !n.tried[4026532002] {
		t.Error("a namespace that nothing leads to")
	}
}

func TestParseMounts(t *testing.T) {
	text := `22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 0:4 net:[4026532281] /run/docker/netns/a\040b\134c rw shared:7 - nsfs nsfs rw
37 35 0:4 mnt:[4026532282] /run/mnt rw - nsfs nsfs rw
38 35 0:4 net:[4026532283] /fake rw - ext4 /dev/sda rw
39 35 0:4 net:[4026532284] /short rw -
40 35 0:4 net:[4026532285] /bad\9 rw - nsfs nsfs rw
- 35 0:4 net:[4026532286] /x nsfs
`
	want := []mount{{4026532281, `/run/docker/netns/a b\c`}, {4026532285, `/bad\9`}}
	if d := cmp.Diff(want, parseMounts(text), cmp.AllowUnexported(mount{})); d != "" {
		t.Error(d)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add("36 35 0:4 net:[4026532281] /run/netns/blue\\040 rw shared:7 - nsfs nsfs rw\n")
	f.Add("36 35 0:4 net:[1] \\ rw - nsfs\n")
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(parseMounts(text)); n > strings.Count(text, "net:[") {
			t.Errorf("%d namespaces in %q", n, text)
		}
	})
}
