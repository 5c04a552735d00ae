package fact

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

const procQueues = "    0 3078187    12 2 65531     3     4       90  1\n65535 4294967295 1024 1     0 4294967295 0 5000 1\n"

func TestNfqueues(t *testing.T) {
	const file = "proc/thread-self/net/netfilter/nfnetlink_queue"
	read := func(r *Reader) []record.Fact { return r.Read(record.FactRequest{Kind: "nfqueues"}, ns) }
	base := record.Fact{Kind: "nfqueues", NetNS: ns, Source: "/proc/net/netfilter/nfnetlink_queue", Command: "cat /proc/net/netfilter/nfnetlink_queue"}
	first, second, none := base, base, base
	first.Name, first.Value = "0", "12"
	first.Fields = fields{"portid": "3078187", "queued": "12", "copy_mode": "2", "copy_range": "65531", "dropped": "3", "user_dropped": "4"}
	second.Name, second.Value = "65535", "1024"
	second.Fields = fields{"portid": "4294967295", "queued": "1024", "copy_mode": "1", "copy_range": "0", "dropped": "4294967295", "user_dropped": "0"}
	none.Name, none.Value = "nfqueues", None
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []record.Fact
	}{
		{"two", map[string]string{file: procQueues}, []record.Fact{first, second}},
		{"nobody listens", map[string]string{file: ""}, []record.Fact{none}},
		{"not loaded", map[string]string{filepath.Dir(file) + "/": ""}, []record.Fact{none}},
		{"without netfilter", map[string]string{"proc/thread-self/net/": ""}, []record.Fact{none}},
	} {
		if d := gocmp.Diff(tt.want, read(tree(t, tt.files))); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	for name, r := range map[string]*Reader{
		"no procfs":        {root: t.TempDir()},
		"unreadable":       tree(t, map[string]string{file + "/": ""}),
		"another form":     tree(t, map[string]string{file: "1 2 3 4 5 6\n"}),
		"no number":        tree(t, map[string]string{file: "1 2 3 4 5 6 x 8 1\n"}),
		"negative":         tree(t, map[string]string{file: "1 -2 3 4 5 6 7 8 1\n"}),
		"more than 32 bit": tree(t, map[string]string{file: "1 2 3 4 5 4294967296 7 8 1\n"}),
	} {
		got := read(r)
		if len(got) == 0 || got[len(got)-1].Missing == "" || got[0].Value == None {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if os.Geteuid() != 0 { // who is root may read it all the same
		r := tree(t, map[string]string{file: ""})
		err := os.Chmod(r.path(file), 0)
		if got := read(r); err != nil || !strings.Contains(got[0].Missing, "it needs root") {
			t.Errorf("not permitted: %+v, %v", got, err)
		}
	}
}

func FuzzQueues(f *testing.F) {
	f.Add(procQueues)
	f.Add("")
	f.Add("1 2 3 4 5 6 7")
	f.Fuzz(func(t *testing.T, s string) {
		_ = parseQueues(s, func(number, queued string, f fields) {
			if len(f) != len(queueColumns)-1 || f["queued"] != queued || number == "" || len(number) > len("4294967295") {
				t.Errorf("%q: queue %q, %q queued, %v", s, number, queued, f)
			}
		})
	})
}
