package fact

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// tree makes files below a root for a Reader; a name that ends in / is a
// folder.
func tree(t *testing.T, files map[string]string) *Reader {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Reader{root: root}
}

func TestCheck(t *testing.T) {
	good := []string{
		"addresses", "conntrack", "iptables-legacy", "nfqueues", "nft-chains", "sockstat",
		"tcp-listeners", "tcp-states", "udp-sockets",
		"routes", "rules", "neighbours", "bpf-programs", "bpf-programs eth0", "classes eth0",
		"route 192.0.2.1 from 192.0.2.2 iif eth0 oif eth1 mark 0x10 tos 0x10 uid 0 ipproto tcp sport 5 dport 65535", "route 192.0.2.1 ipproto icmp",
		"sysctl net/ipv4/conf/eth0.100/*",
		"link eth0", "link ${device}", "qdiscs eth0.100", "tc-filters veth@x",
		"neigh 192.0.2.1 eth0", "neigh fe80::1 eth0",
		"route 192.0.2.1", "route 2001:db8::1 from 2001:db8::2", "route 192.0.2.1 from 192.0.2.2 iif eth0",
		"route ::ffff:192.0.2.1 from 192.0.2.2", "route 192.0.2.1 iif eth0",
		"sysctl net/ipv4/ip_forward", "sysctl net/ipv4/conf/eth0.100/rp_filter", "sysctl vm/min_free_kbytes",
		"sysctl kernel/pid_max",
	}
	bad := []string{
		"", "links", "owner 5", "addresses all", "link", "link ..", "link a/b", "link a b", "link a:b", "link sixteen-letters-",
		"neigh 192.0.2.1", "neigh eth0 192.0.2.1", "neigh 192.0.2.1 eth0 x", "neigh fe80::1%eth0 eth0",
		"route", "route host", "route 192.0.2.1 from", "route 192.0.2.1 from 2001:db8::1", "route 192.0.2.1 oif",
		"route 192.0.2.1 oif eth0 iif eth1", "route 192.0.2.1 mark x", "route 192.0.2.1 mark 4294967296", "route 192.0.2.1 tos 256", "route 192.0.2.1 dport 80",
		"route 192.0.2.1 ipproto 6", "route 192.0.2.1 ipproto tcp dport 65536", "route 192.0.2.1 mark 1 mark 2", "route 192.0.2.1 via 192.0.2.2",
		"routes all", "bpf-programs a/b", "classes", "sysctl */x", "sysctl net/*/*", "sysctl net/ipv6/conf/eth0/stable_secret/*",
		"route 192.0.2.1 iif eth0 from 192.0.2.2", "route 192.0.2.1 from 192.0.2.2 from 192.0.2.3", "route 192.0.2.1  from 192.0.2.2",
		"sysctl", "sysctl net", "sysctl net.ipv4.ip_forward", "sysctl /proc/sys/net/ipv4/ip_forward", "sysctl net/../kernel/x",
		"sysctl net/", "sysctl net//x", "sysctl fs/file-max", "sysctl dev/x", "sysctl net/a\nb", "sysctl net/a\x00b",
		"sysctl net/ipv4/tcp_fastopen_key", "sysctl net/ipv6/conf/eth0/stable_secret",
	}
	for _, request := range good {
		kind, arg, _ := strings.Cut(request, " ")
		if err := Check(kind, arg); err != nil {
			t.Errorf("%q: %v", request, err)
		}
	}
	for _, request := range bad {
		kind, arg, _ := strings.Cut(request, " ")
		if err := Check(kind, arg); err == nil {
			t.Errorf("%q was accepted", request)
		}
		got := (&Reader{}).Read(record.FactRequest{Kind: kind, Arg: arg}, record.NetNS{Inode: 5})
		if len(got) != 1 || got[0].Missing == "" || got[0].Kind != kind || got[0].Request != arg || got[0].Value != "" {
			t.Errorf("%q was read: %+v", request, got)
		}
	}
}

// Every kind of the table that causes are written by is here, and no other.
func TestKindsAreTheDocumented(t *testing.T) {
	b, err := knowledge.FS.ReadFile("causes/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "\n### facts\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var want []string
	for line := range strings.Lines(table) {
		if row, ok := strings.CutPrefix(line, "| `"); ok {
			want = append(want, row[:strings.IndexAny(row, " `")])
		}
	}
	want = slices.DeleteFunc(want, func(kind string) bool { return kind == "owner" }) // internal/owner
	slices.Sort(want)
	if d := cmp.Diff(want, Kinds()); d != "" {
		t.Error(d)
	}
}

var ns = record.NetNS{Inode: 4026532000, Name: "blue"}

func TestSysctl(t *testing.T) {
	child := tree(t, map[string]string{
		"proc/sys/net/ipv4/tcp_rmem":                  "4096\t131072\t6291456\n",
		"proc/sys/net/ipv4/conf/eth0.100/rp_filter":   "1\n",
		"proc/sys/net/ipv4/directory/":                "",
		"proc/sys/vm/min_free_kbytes":                 "67584\n",
		"proc/sys/net/ipv4/conf/default/accept_local": "0\n",
	})
	host := tree(t, map[string]string{
		"proc/sys/net/core/netdev_max_backlog":       "1000\n",
		"proc/sys/net/ipv4/neigh/default/gc_thresh3": "1024\n",
		"proc/sys/net/ipv4/conf/eth0/rp_filter":      "2\n",
	})
	var entered int
	child.Host = func(fn func() error) error {
		entered++
		root := child.root
		defer func() { child.root = root }()
		child.root = host.root
		return fn()
	}
	for _, tt := range []struct {
		name string
		want record.Fact
		// enters says whether the host's namespace is looked into.
		enters bool
	}{
		{name: "net/ipv4/tcp_rmem", want: record.Fact{NetNS: ns, Value: "4096 131072 6291456", Command: "sysctl net.ipv4.tcp_rmem"}},
		{name: "net/ipv4/conf/eth0.100/rp_filter", want: record.Fact{NetNS: ns, Value: "1", Command: "sysctl net.ipv4.conf.eth0/100.rp_filter"}},
		{name: "net/core/netdev_max_backlog", want: record.Fact{Value: "1000", Command: "sysctl net.core.netdev_max_backlog"}, enters: true},
		{name: "net/ipv4/neigh/default/gc_thresh3", want: record.Fact{Value: "1024", Command: "sysctl net.ipv4.neigh.default.gc_thresh3"}, enters: true},
		// The host's device of that name is another one.
		{name: "net/ipv4/conf/eth0/rp_filter", want: record.Fact{NetNS: ns, Value: None, Command: "sysctl net.ipv4.conf.eth0.rp_filter"}},
		{name: "net/ipv4/nothing", want: record.Fact{NetNS: ns, Value: None, Command: "sysctl net.ipv4.nothing"}, enters: true},
		{name: "vm/min_free_kbytes", want: record.Fact{Value: "67584", Command: "sysctl vm.min_free_kbytes"}},
		{name: "vm/nothing", want: record.Fact{Value: None, Command: "sysctl vm.nothing"}},
	} {
		entered = 0
		tt.want.Kind, tt.want.Request, tt.want.Name, tt.want.Source = "sysctl", tt.name, tt.name, "/proc/sys/"+tt.name
		got := child.Read(record.FactRequest{Kind: "sysctl", Arg: tt.name}, ns)
		if d := cmp.Diff([]record.Fact{tt.want}, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
		if (entered > 0) != tt.enters {
			t.Errorf("%s: looked into the host's namespace %d times", tt.name, entered)
		}
	}
	missing := func(name, why string) {
		t.Helper()
		got := child.Read(record.FactRequest{Kind: "sysctl", Arg: name}, ns)
		if len(got) != 1 || !strings.Contains(got[0].Missing, why) || got[0].Value != "" || got[0].Command == "" {
			t.Errorf("%s: %+v, want one that is missing because %s", name, got, why)
		}
	}
	missing("net/ipv4/directory", "is a directory")
	child.Host = func(func() error) error { return unix.EPERM }
	missing("net/core/netdev_max_backlog", "not permitted")
	child.Host = nil
	missing("net/core/netdev_max_backlog", "of the host")
}

func TestConntrack(t *testing.T) {
	read := func(r *Reader) []record.Fact {
		return r.Read(record.FactRequest{Kind: "conntrack"}, ns)
	}
	const dir = "proc/sys/net/netfilter/nf_conntrack_"
	got := read(tree(t, map[string]string{dir + "count": "12\n", dir + "max": "262144\n", dir + "buckets": "65536\n"}))
	if len(got) != 1 || got[0].Value != "12" || got[0].Name != "conntrack" || got[0].NetNS != ns {
		t.Errorf("got %+v", got)
	}
	if d := cmp.Diff(map[string]string{"count": "12", "max": "262144", "buckets": "65536"}, got[0].Fields); d != "" {
		t.Error(d)
	}
	if got := read(tree(t, map[string]string{"proc/sys/net/netfilter/": ""})); len(got) != 1 || got[0].Value != None {
		t.Errorf("without the module: %+v", got)
	}
	if got := read(tree(t, map[string]string{dir + "count/": ""})); len(got) != 1 || got[0].Missing == "" {
		t.Errorf("unreadable: %+v", got)
	}
}

func TestIptablesLegacy(t *testing.T) {
	read := func(files map[string]string) record.Fact {
		t.Helper()
		got := tree(t, files).Read(record.FactRequest{Kind: "iptables-legacy"}, ns)
		if len(got) != 1 {
			t.Fatalf("got %+v", got)
		}
		return got[0]
	}
	const dir = "proc/thread-self/net/"
	if f := read(map[string]string{dir + "ip_tables_names": "nat\nfilter\n", dir + "ip6_tables_names": "filter\nraw\n"}); f.Value != "filter nat raw" || f.Missing != "" {
		t.Errorf("got %+v", f)
	}
	if f := read(map[string]string{dir + "ip_tables_names": ""}); f.Value != "" || f.Missing != "" {
		t.Errorf("without tables: %+v", f)
	}
	if f := read(map[string]string{dir + "ip_tables_names/": ""}); f.Missing == "" {
		t.Errorf("unreadable: %+v", f)
	}
}

func TestSockstat(t *testing.T) {
	const text = "sockets: used 185\nTCP: inuse 5 orphan 0 tw 2 alloc 8 mem 1\nUDP: inuse 2 mem 3\nFRAG: inuse 0 memory 0\nodd\nX: y\n"
	var got []string
	parseSockstat(text, func(name, value string) { got = append(got, name+"="+value) })
	want := []string{
		"sockets.used=185", "TCP.inuse=5", "TCP.orphan=0", "TCP.tw=2", "TCP.alloc=8", "TCP.mem=1",
		"UDP.inuse=2", "UDP.mem=3", "FRAG.inuse=0", "FRAG.memory=0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r := tree(t, map[string]string{"proc/thread-self/net/sockstat": text})
	if facts := r.Read(record.FactRequest{Kind: "sockstat"}, ns); len(facts) != len(want) || facts[6].Name != "UDP.inuse" || facts[6].Value != "2" {
		t.Errorf("got %+v", facts)
	}
	if facts := (&Reader{root: t.TempDir()}).Read(record.FactRequest{Kind: "sockstat"}, ns); len(facts) != 1 || facts[0].Missing == "" {
		t.Errorf("without the file: %+v", facts)
	}
}

func TestShell(t *testing.T) {
	for word, want := range map[string]string{
		"eth0": "eth0", "eth0.100": "eth0.100", "a/b_c-d:e@f": "a/b_c-d:e@f", "": "''", "$(reboot)": "'$(reboot)'",
		"a b": "'a b'", "it's": `'it'\''s'`, "a;b": "'a;b'", "~x": "'~x'", "ü": "'ü'", "--": "'--'",
	} {
		if got := shell(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

func TestErrno(t *testing.T) {
	for err, want := range map[error]string{unix.EXDEV: "EXDEV", errors.Join(unix.EINVAL): "EINVAL", kernelnet.ErrShort: "", unix.Errno(4000): "4000"} {
		if got := errno(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
