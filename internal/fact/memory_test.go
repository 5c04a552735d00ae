package fact

import (
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

var memoryFiles = map[string]string{
	"proc/thread-self/net/sockstat":        "sockets: used 17\nTCP: inuse 1 orphan 0 tw 0 alloc 4 mem 93\nUDP: inuse 2 mem 256\nFRAG: inuse 1 memory 4096\n",
	"proc/thread-self/net/sockstat6":       "FRAG6: inuse 0 memory 0\n",
	"proc/sys/net/ipv4/ipfrag_high_thresh": "4194304\n", "proc/sys/net/ipv4/ipfrag_low_thresh": "3145728\n",
	"proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t33554432\n", "proc/sys/net/core/rmem_max": "212992\n", "proc/sys/net/core/rmem_default": "1000\n",
	"proc/sys/net/ipv4/udp_rmem_min": "4096\n",
	"proc/meminfo":                   "MemTotal:       24684096 kB\nMemFree:        20203348 kB\nMemAvailable:   22743360 kB\nHugePages_Total:       0\n",
	"proc/sys/vm/min_free_kbytes":    "67584\n",
}

func TestMemory(t *testing.T) {
	child := tree(t, memoryFiles)
	host := tree(t, map[string]string{
		"proc/sys/net/ipv4/tcp_mem": "287901\t383869\t575802\n", "proc/sys/net/ipv4/udp_mem": "1 2 3\n",
		"proc/sys/net/core/mem_pcpu_rsv": "256\n", "proc/sys/net/core/optmem_max": "131072\n", "proc/sys/net/core/rmem_max": "9\n",
	})
	read := func(withHost bool) map[string]fields {
		child.Host = nil
		if withHost {
			child.Host = func(fn func() error) error {
				root := child.root
				defer func() { child.root = root }()
				child.root = host.root
				return fn()
			}
		}
		got := map[string]fields{}
		for _, f := range child.Read(record.FactRequest{Kind: "memory"}, ns) {
			if f.Missing != "" || f.Source == "" || f.Command == "" || f.NetNS != ns {
				t.Errorf("%+v", f)
			}
			got[f.Name] = fields{"": f.Value}
			for k, v := range f.Fields {
				got[f.Name][k] = v
			}
		}
		return got
	}
	want := map[string]fields{
		"tcp":  {"": "93", "pages": "93", "low": "287901", "pressure": "383869", "limit": "575802"},
		"udp":  {"": "256", "pages": "256", "low": "1", "pressure": "2", "limit": "3"},
		"frag": {"": "4096", "bytes": "4096", "high": "4194304", "low": "3145728"}, "frag6": {"": "0", "bytes": "0"},
		"rmem": {"": "212992", "max": "212992", "default": "1000"}, "optmem": {"": "131072", "max": "131072"},
		"tcp_rmem":     {"": "33554432", "min": "4096", "default": "131072", "max": "33554432"},
		"udp_rmem_min": {"": "4096"}, "mem_pcpu_rsv": {"": "256"},
		"host": {
			"": "22743360", "total_kb": "24684096", "free_kb": "20203348", "available_kb": "22743360", "min_free_kb": "67584",
			"page_size": decimal(os.Getpagesize()),
		},
	}
	if d := gocmp.Diff(want, read(true)); d != "" {
		t.Error(d)
	}
	// What the host alone has is not known where that cannot be entered.
	for _, name := range []string{"low", "pressure", "limit"} {
		delete(want["tcp"], name)
		delete(want["udp"], name)
	}
	delete(want, "optmem")
	delete(want, "mem_pcpu_rsv")
	if d := gocmp.Diff(want, read(false)); d != "" {
		t.Error(d)
	}
	if got := tree(t, nil).Read(record.FactRequest{Kind: "memory"}, ns); len(got) != 1 || got[0].Missing == "" {
		t.Errorf("without procfs: %+v", got)
	}
}

// A host with version 2 alone, one with both, and one in a container.
const (
	mountsV2    = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 22 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
	mountsBoth  = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	mountsBelow = `31 22 0:28 /docker/ab /my\040groups rw - cgroup2 cgroup rw` + "\n"
)

func TestCgroup(t *testing.T) {
	for _, tt := range []struct {
		name, mounts, groups string
		files                map[string]string
		want                 []record.Fact
	}{
		{"v2", mountsV2, "0::/system.slice/a.service\n", map[string]string{
			"sys/fs/cgroup/system.slice/a.service/memory.max":     "1048576\n",
			"sys/fs/cgroup/system.slice/a.service/memory.high":    "max\n",
			"sys/fs/cgroup/system.slice/a.service/memory.current": "4096\n",
			"sys/fs/cgroup/system.slice/a.service/memory.events":  "low 0\nhigh 0\nmax 17\noom 2\noom_kill 1\n",
			"sys/fs/cgroup/system.slice/a.service/memory.stat":    "anon 5\nsock 8192\n",
			"sys/fs/cgroup/system.slice/memory.max":               "max\n",
		}, []record.Fact{
			{Name: "/system.slice/a.service", Value: "1048576", Fields: fields{
				"version": "2", "v2_path": "/system.slice/a.service", "max": "1048576", "high": "max", "current": "4096", "sock": "8192",
				"events_low": "0", "events_high": "0", "events_max": "17", "events_oom": "2", "events_oom_kill": "1",
			}},
			{Name: "/system.slice", Value: "max", Fields: fields{"version": "2", "v2_path": "/system.slice/a.service", "max": "max"}},
		}},
		{"the root", mountsV2, "0::/\n", nil, []record.Fact{{Name: "/", Value: "max", Fields: fields{"v2_path": "/"}}}},
		{"both", mountsBoth, "4:memory:/a\n2:cpu,cpuacct:/b\n0::/c\n", map[string]string{
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":          "9223372036854771712\n",
			"sys/fs/cgroup/memory/a/memory.usage_in_bytes":          "5\n",
			"sys/fs/cgroup/memory/a/memory.failcnt":                 "3\n",
			"sys/fs/cgroup/memory/a/memory.kmem.tcp.limit_in_bytes": "4096\n",
			"sys/fs/cgroup/memory/a/memory.kmem.tcp.usage_in_bytes": "1\n",
			"sys/fs/cgroup/memory/a/memory.kmem.tcp.failcnt":        "2\n",
		}, []record.Fact{{Name: "/a", Value: "max", Fields: fields{
			"version": "1", "v2_path": "/c", "max": "max", "current": "5", "failcnt": "3", "tcp_max": "4096", "tcp_current": "1", "tcp_failcnt": "2",
		}}}},
		{"a container", mountsBelow, "0::/docker/ab/x\n", map[string]string{"my groups/x/memory.max": "7\n", "my groups/memory.max": "8\n"}, []record.Fact{
			{Name: "/docker/ab/x", Value: "7", Fields: fields{"version": "2", "v2_path": "/docker/ab/x", "max": "7"}},
			{Name: "/docker/ab", Value: "8", Fields: fields{"version": "2", "v2_path": "/docker/ab/x", "max": "8"}},
		}},
		{"outside", mountsBelow, "0::/docker/abc\n", nil, []record.Fact{{Name: "42", Missing: "control group /docker/abc: it is not below what is mounted here"}}},
		{"above the own", mountsV2, "0::/../x\n", nil, []record.Fact{{Name: "42", Missing: "control group /../x: it is not below what is mounted here"}}},
		{"not mounted", "", "0::/x\n", nil, []record.Fact{{Name: "42", Missing: "control group /x: it is not below what is mounted here"}}},
	} {
		files := map[string]string{"proc/self/mountinfo": tt.mounts, "proc/42/cgroup": tt.groups}
		for name, text := range tt.files {
			files[name] = text
		}
		var got []record.Fact
		for _, f := range tree(t, files).Read(record.FactRequest{Kind: "cgroup", Arg: "42"}, ns) {
			if f.Source == "" || f.Command == "" {
				t.Errorf("%s: %+v", tt.name, f)
			}
			got = append(got, record.Fact{Name: f.Name, Value: f.Value, Fields: f.Fields, Missing: f.Missing})
		}
		if d := gocmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	r := tree(t, map[string]string{"proc/self/mountinfo": mountsV2})
	if got := r.Read(record.FactRequest{Kind: "cgroup", Arg: "42"}, ns); len(got) != 1 || got[0].Value != None {
		t.Errorf("no such process: %+v", got)
	}
}

func TestCheckCgroup(t *testing.T) {
	for _, arg := range []string{"1", "4194304", "socket 7"} {
		if err := checkCgroup(arg); err != nil {
			t.Errorf("%q: %v", arg, err)
		}
	}
	for _, arg := range []string{"", "0", "self", "1/../2", "socket", "socket 0", "socket x", "socket 1 2", "01", "-1"} {
		if err := checkCgroup(arg); err == nil {
			t.Errorf("%q was accepted", arg)
		}
	}
}

func FuzzCgroups(f *testing.F) {
	f.Add(mountsBoth+mountsBelow, "4:memory:/a\n0::/c\n")
	f.Add(`1 2 3 \777 \04 x - cgroup2 a b`, "0::/..")
	f.Fuzz(func(t *testing.T, mounts, groups string) {
		m := parseMounts(mounts)
		v1, v2 := parseMembership(groups)
		for _, dir := range []string{m.v1.dir(v1), m.v2.dir(v2)} {
			if strings.Contains("/"+dir+"/", "/../") && !strings.Contains(m.v1.point+m.v2.point, "..") {
				t.Errorf("%q leads out", dir)
			}
		}
	})
}
