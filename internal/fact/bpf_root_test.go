//go:build root

package fact

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// namedProgram loads a program that returns a number, under a name of its own.
func namedProgram(t *testing.T, name string, typ ebpf.ProgramType, attach ebpf.AttachType, ret int32) (p *ebpf.Program, id string) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: typ, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, ret), asm.Return()},
	})
	if err != nil {
		t.Fatalf("load program of type %s: %v", typ, err)
	}
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	must(t, err)
	num, _ := info.ID()
	return p, decimal(uint32(num))
}

// linkID is the number of a link.
func linkID(t *testing.T, l link.Link) string {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	info, err := l.Info()
	must(t, err)
	return decimal(uint32(info.ID))
}

// thePrograms are those of a request, without those of cgroups and without
// what other tests attach to links.
func thePrograms(t *testing.T, arg string) []record.Fact {
	t.Helper()
	return slices.DeleteFunc(facts(t, "bpf-programs", arg), func(f record.Fact) bool {
		return f.Fields["hook"] == "cgroup" || f.Value == None
	})
}

func TestProgramsOnDevice(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		dev, err := netlink.LinkByName("a0")
		must(t, err)
		if f := one(t, "bpf-programs", "a0"); f.Value != None {
			t.Errorf("at first: %+v", f)
		}
		if f := one(t, "bpf-programs", "none0"); f.Value != None {
			t.Errorf("no device: %+v", f)
		}
		xdp, xdpID := namedProgram(t, "my_xdp", ebpf.XDP, ebpf.AttachXDP, 2)
		l, err := link.AttachXDP(link.XDPOptions{Program: xdp, Interface: dev.Attrs().Index, Flags: link.XDPDriverMode})
		must(t, err)
		xdpLink := linkID(t, l)
		cls, clsID := namedProgram(t, "my_classifier_1", ebpf.SchedCLS, ebpf.AttachNone, 0)
		must(t, netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
		for i, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			must(t, netlink.FilterAdd(&netlink.BpfFilter{
				FilterAttrs: netlink.FilterAttrs{LinkIndex: dev.Attrs().Index, Parent: parent, Handle: 1, Priority: uint16(10 + i), Protocol: unix.ETH_P_ALL},
				Fd:          cls.FD(), Name: "from-netdev", DirectAction: i > 0,
			}))
		}
		want := map[string]object{
			"xdp a0 driver":                    {"hook": "xdp", "dev": "a0", "attach": "driver", "id": xdpID, "name": "my_xdp", "type": "xdp", "link": xdpLink},
			"tc a0 ingress pref 10 handle 0x1": {"hook": "tc", "dev": "a0", "attach": "ingress", "parent": "ingress", "priority": "10", "handle": "0x1", "direct_action": "0", "id": clsID, "name": "my_classifier_1", "type": "sched_cls"},
			"tc a0 ingress pref 11 handle 0x1": {"hook": "tc", "dev": "a0", "attach": "ingress", "parent": "ingress", "priority": "11", "handle": "0x1", "direct_action": "1", "id": clsID, "name": "my_classifier_1", "type": "sched_cls"},
			"tc a0 egress pref 12 handle 0x1":  {"hook": "tc", "dev": "a0", "attach": "egress", "parent": "egress", "priority": "12", "handle": "0x1", "direct_action": "1", "id": clsID, "name": "my_classifier_1", "type": "sched_cls"},
		}
		for _, arg := range []string{"a0", ""} {
			got := map[string]object{}
			for _, f := range thePrograms(t, arg) {
				if len(f.Fields["tag"]) != 16 || f.Value != f.Fields["name"] {
					t.Errorf("%+v", f)
				}
				got[f.Name] = without(f.Fields, map[string]string{"tag": "checked above"})
			}
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("%q: %s", arg, d)
			}
		}
		sameAsBpftoolNet(t)
		if f := one(t, "bpf-programs", "lo"); f.Value != None {
			t.Errorf("lo: %+v", f)
		}
		must(t, l.Close())
		must(t, netlink.LinkSetXdpFdWithFlags(dev, xdp.FD(), unix.XDP_FLAGS_SKB_MODE))
		if f := named(t, thePrograms(t, "a0"), "xdp a0 generic"); f.Fields["link"] != "" || f.Fields["id"] != xdpID {
			t.Errorf("without a link: %+v", f)
		}
		sameAsBpftoolNet(t)
	})
}

// sameAsBpftoolNet compares with bpftool net, which knows neither tcx nor
// netkit in this version.
func sameAsBpftoolNet(t *testing.T) {
	t.Helper()
	var tool []struct {
		XDP []struct {
			Devname, Mode string
			ID            uint32
		}
		TC []struct {
			Devname, Kind, Name string
			ID                  uint32
		}
	}
	bpftool(t, &tool, "net", "show")
	var want, got []string
	for _, part := range tool {
		for _, x := range part.XDP {
			want = append(want, fmt.Sprintf("xdp %s %s %d", x.Devname, x.Mode, x.ID))
		}
		for _, x := range part.TC {
			_, direction, _ := strings.Cut(x.Kind, "/")
			want = append(want, fmt.Sprintf("tc %s %s %d", x.Devname, direction, x.ID))
		}
	}
	for _, f := range thePrograms(t, "") {
		switch f.Fields["hook"] {
		case "xdp", "tc":
			got = append(got, fmt.Sprintf("%s %s %s %s", f.Fields["hook"], f.Fields["dev"], f.Fields["attach"], f.Fields["id"]))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := gocmp.Diff(want, got); d != "" || len(got) == 0 {
		t.Errorf("- bpftool, + whydrop\n%s", d)
	}
}

func bpftool(t *testing.T, out any, args ...string) {
	t.Helper()
	b, err := exec.Command("bpftool", append([]string{"-j"}, args...)...).Output()
	must(t, err)
	must(t, json.Unmarshal(b, out))
}

func TestProgramsOnTCX(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		dev, err := netlink.LinkByName("a0")
		must(t, err)
		var want []string
		for i, name := range []string{"tcx_second", "tcx_first"} {
			p, id := namedProgram(t, name, ebpf.SchedCLS, ebpf.AttachTCXIngress, -1)
			l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
			testkit.SkipBefore(t, "6.6", "tcx", err)
			want = append(want, fmt.Sprintf("tcx a0 ingress %d %s %s link %s", 1-i, name, id, linkID(t, l)))
		}
		// One without a link.
		p, id := namedProgram(t, "tcx_out", ebpf.SchedCLS, ebpf.AttachTCXEgress, -1)
		must(t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: dev.Attrs().Index, Program: p, Attach: ebpf.AttachTCXEgress}))
		want = append(want, fmt.Sprintf("tcx a0 egress 0 tcx_out %s link ", id))
		for _, arg := range []string{"a0", ""} {
			var got []string
			for _, f := range thePrograms(t, arg) {
				got = append(got, fmt.Sprintf("%s %s %s link %s", f.Name, f.Fields["name"], f.Fields["id"], f.Fields["link"]))
			}
			slices.Sort(got)
			slices.Sort(want)
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("%q: %s", arg, d)
			}
		}
	})
}

func TestProgramsOnNetkit(t *testing.T) {
	testkit.NeedConfig(t, "CONFIG_NETKIT")
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		nk := &netlink.Netkit{LinkAttrs: netlink.LinkAttrs{Name: "nk0"}, Mode: netlink.NETKIT_MODE_L3, PeerPolicy: netlink.NETKIT_POLICY_BLACKHOLE}
		nk.SetPeerAttrs(&netlink.LinkAttrs{Name: "nk1"})
		testkit.SkipBefore(t, "6.7", "netkit", netlink.LinkAdd(nk))
		f := one(t, "link", "nk0")
		for k, v := range map[string]string{"kind": "netkit", "netkit_type": "primary", "netkit_mode": "l3", "netkit_policy": "forward", "netkit_peer_policy": "blackhole", "peer": "nk1"} {
			if f.Fields[k] != v {
				t.Errorf("%s is %q, want %q", k, f.Fields[k], v)
			}
		}
		dev, err := netlink.LinkByName("nk0")
		must(t, err)
		var want []string
		for attach, where := range map[ebpf.AttachType]string{ebpf.AttachNetkitPrimary: "primary", ebpf.AttachNetkitPeer: "peer"} {
			p, id := namedProgram(t, "nk_"+where, ebpf.SchedCLS, attach, -1)
			l, err := link.AttachNetkit(link.NetkitOptions{Interface: dev.Attrs().Index, Program: p, Attach: attach})
			must(t, err)
			want = append(want, fmt.Sprintf("netkit nk0 %s 0 nk_%s %s link %s", where, where, id, linkID(t, l)))
		}
		var got []string
		for _, f := range thePrograms(t, "nk0") {
			got = append(got, fmt.Sprintf("%s %s %s link %s", f.Name, f.Fields["name"], f.Fields["id"], f.Fields["link"]))
		}
		slices.Sort(want)
		slices.Sort(got)
		if d := gocmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		list := (&Reader{}).Read(recordRequest("bpf-programs", "nk1"), ns)
		if len(list) != 1 || !strings.Contains(list[0].Missing, "other end") {
			t.Errorf("the peer: %+v", list)
		}
	})
}

func TestProgramsOfNamespace(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		f, err := os.Open("/proc/thread-self/ns/net")
		must(t, err)
		defer f.Close()
		want := map[string]string{}
		for attach, typ := range map[ebpf.AttachType]ebpf.ProgramType{ebpf.AttachSkLookup: ebpf.SkLookup, ebpf.AttachFlowDissector: ebpf.FlowDissector} {
			name := map[ebpf.AttachType]string{ebpf.AttachSkLookup: "sk_lookup", ebpf.AttachFlowDissector: "flow_dissector"}[attach]
			p, id := namedProgram(t, "ns_"+name[:5], typ, attach, 1)
			l, err := link.AttachNetNs(int(f.Fd()), p)
			must(t, err)
			want[name+" 0"] = "ns_" + name[:5] + " id " + id + " link " + linkID(t, l)
		}
		got := map[string]string{}
		for _, f := range thePrograms(t, "") {
			got[f.Name] = f.Value + " id " + f.Fields["id"] + " link " + f.Fields["link"]
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		sameAsBpftoolLinks(t, "netns", "sk_lookup", "flow_dissector")
		// They are of no other namespace.
		testkit.InNetNS(t, func(*netlab.Namespace) {
			if list := thePrograms(t, ""); len(list) != 0 {
				t.Errorf("another namespace: %+v", list)
			}
		})
	})
}

// sameAsBpftoolLinks holds every link of a kind that bpftool lists, and that
// the test made, against the facts.
func sameAsBpftoolLinks(t *testing.T, kind string, hooks ...string) {
	t.Helper()
	var tool []struct {
		ID     uint32
		Type   string
		ProgID uint32 `json:"prog_id"`
	}
	bpftool(t, &tool, "link", "show")
	want := map[string]string{}
	for _, l := range tool {
		if l.Type == kind {
			want[decimal(l.ID)] = decimal(l.ProgID)
		}
	}
	n := 0
	for _, f := range facts(t, "bpf-programs", "") {
		if !slices.Contains(hooks, f.Fields["hook"]) {
			continue
		}
		n++
		if id := f.Fields["link"]; id == "" || want[id] != f.Fields["id"] {
			t.Errorf("%+v: bpftool has %v", f, want)
		}
	}
	if n < len(hooks) {
		t.Errorf("%d facts of %v", n, hooks)
	}
}

func TestProgramsOnNetfilter(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "my_netfilter", Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		})
		testkit.SkipBefore(t, "6.4", "a program on a hook of netfilter", err)
		defer p.Close()
		l, err := link.AttachNetfilter(link.NetfilterOptions{Program: p, ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetLocalIn, Priority: -129})
		must(t, err)
		want := "netfilter ip input -129 link " + linkID(t, l)
		f := named(t, facts(t, "bpf-programs", ""), want)
		if f.Value != "my_netfilter" || f.Fields["type"] != "netfilter" || f.Fields["namespace"] != "unknown" && f.Fields["namespace"] != "this" {
			t.Errorf("got %+v", f)
		}
		// Whose hook it is the kernel tells where that module is loaded.
		loaded := exec.Command("nft", "list", "hooks").Run() == nil && known(t)
		f = named(t, facts(t, "bpf-programs", ""), want)
		if loaded != (f.Fields["namespace"] == "this") {
			t.Errorf("the hooks can be listed: %v, %+v", loaded, f)
		}
		testkit.InNetNS(t, func(*netlab.Namespace) {
			there := slices.ContainsFunc(facts(t, "bpf-programs", ""), func(f record.Fact) bool { return f.Name == want })
			if there == loaded {
				t.Errorf("the hooks can be listed: %v; in another namespace it is there: %v", loaded, there)
			}
		})
	})
}

// known says whether the list of hooks can be read without loading a module.
func known(t *testing.T) bool {
	t.Helper()
	p := &programs{query: &query{Reader: &Reader{}}}
	_, known, err := p.hookPrograms(unix.AF_INET, 1)
	must(t, err)
	return known
}

// cgroupRoot is where the second version is mounted.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	must(t, err)
	if root := unifiedMount(string(b)); root != "" {
		return root
	}
	dir := t.TempDir()
	must(t, unix.Mount("none", dir, "cgroup2", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

func TestProgramsOfCgroups(t *testing.T) {
	testkit.NeedRoot(t)
	root := cgroupRoot(t)
	for _, dir := range []string{"whydrop test", "whydrop test/below"} {
		must(t, os.Mkdir(filepath.Join(root, dir), 0o755))
		defer os.Remove(filepath.Join(root, dir))
	}
	var want []string
	attach := func(dir, name string, typ ebpf.ProgramType, a ebpf.AttachType, attachName string, order int) {
		t.Helper()
		p, id := namedProgram(t, name, typ, a, 1)
		l, err := link.AttachCgroup(link.CgroupOptions{Path: filepath.Join(root, dir), Attach: a, Program: p})
		must(t, err)
		want = append(want, fmt.Sprintf("cgroup /%s %s %d %s %s multi link %s", dir, attachName, order, name, id, linkID(t, l)))
	}
	attach("whydrop test", "cg_in_first", ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, "cgroup_inet_ingress", 0)
	attach("whydrop test", "cg_in_second", ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, "cgroup_inet_ingress", 1)
	attach("whydrop test/below", "cg_out", ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress, "cgroup_inet_egress", 0)
	attach("whydrop test/below", "cg_connect", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, "cgroup_inet4_connect", 0)
	attach("whydrop test/below", "cg_sock", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate, "cgroup_inet_sock_create", 0)
	attach("whydrop test/below", "cg_opt", ebpf.CGroupSockopt, ebpf.AttachCGroupSetsockopt, "cgroup_setsockopt", 0)
	var got []string
	for _, f := range facts(t, "bpf-programs", "") {
		if strings.HasPrefix(f.Fields["cgroup"], "/whydrop test") {
			got = append(got, fmt.Sprintf("%s %s %s %s link %s", f.Name, f.Value, f.Fields["id"], f.Fields["flags"], f.Fields["link"]))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	sameAsBpftoolLinks(t, "cgroup", "cgroup")
	t.Run("cgroup tree", func(t *testing.T) { sameAsBpftoolCgroups(t, root) })
}

// sameAsBpftoolCgroups compares with bpftool cgroup tree.
func sameAsBpftoolCgroups(t *testing.T, root string) {
	t.Helper()
	var tool []struct {
		Cgroup   string
		Programs []struct {
			ID         uint32
			AttachType string `json:"attach_type"`
			Name       string
		}
	}
	bpftool(t, &tool, "cgroup", "tree", root)
	var want, got []string
	for _, c := range tool {
		for _, p := range c.Programs {
			if strings.Contains(p.AttachType, "device") || strings.Contains(p.AttachType, "sysctl") {
				continue // say nothing about packets
			}
			name := strings.TrimPrefix(p.AttachType, "cgroup_")
			want = append(want, fmt.Sprintf("/%s %s %d %s", strings.Trim(strings.TrimPrefix(c.Cgroup, root), "/"), name, p.ID, p.Name))
		}
	}
	if len(want) == 0 {
		// It gives up at the first hook that the kernel does not know, and
		// lsm_cgroup is one of its.
		testkit.SkipBefore(t, "6.0", "bpftool cgroup tree of this version", errors.New("it lists nothing"))
	}
	for _, f := range facts(t, "bpf-programs", "") {
		if f.Fields["hook"] == "cgroup" {
			got = append(got, fmt.Sprintf("%s %s %s %s", f.Fields["cgroup"], strings.TrimPrefix(f.Fields["attach"], "cgroup_"), f.Fields["id"], f.Fields["name"]))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := gocmp.Diff(want, got); d != "" || len(got) < 6 {
		t.Errorf("- bpftool, + whydrop\n%s", d)
	}
}

// Without the right to ask, what is missing is said; the programs that every
// user may see are there.
func TestProgramsWithoutCapabilities(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		dev, err := netlink.LinkByName("a0")
		must(t, err)
		p, id := namedProgram(t, "my_xdp", ebpf.XDP, ebpf.AttachXDP, 2)
		must(t, netlink.LinkSetXdpFdWithFlags(dev, p.FD(), unix.XDP_FLAGS_SKB_MODE))
		var got []record.Fact
		withoutCapabilities(t, func() { got = (&Reader{}).Read(recordRequest("bpf-programs", ""), ns) })
		if len(got) < 3 || got[0].Fields["id"] != id || got[0].Value != "id "+id || got[0].Missing != "" {
			t.Fatalf("got %+v", got)
		}
		var missing []string
		for _, f := range got[1:] {
			if !strings.Contains(f.Missing, "not permitted") || !strings.Contains(f.Missing, "CAP_") {
				t.Errorf("%+v", f)
			}
			what, _, _ := strings.Cut(f.Missing, ":")
			missing = append(missing, what)
		}
		for _, what := range []string{"names", "namespace", "links"} {
			if !slices.Contains(missing, what) {
				t.Errorf("nothing says that %s are missing: %v", what, missing)
			}
		}
	})
}

// withoutCapabilities runs fn on this thread with none in effect.
func withoutCapabilities(t *testing.T, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var was [2]unix.CapUserData
	must(t, unix.Capget(&head, &was[0]))
	none := was
	none[0].Effective, none[1].Effective = 0, 0
	must(t, unix.Capset(&head, &none[0]))
	defer func() { must(t, unix.Capset(&head, &was[0])) }()
	fn()
}
