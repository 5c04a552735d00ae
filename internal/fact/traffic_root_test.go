//go:build root

package fact

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

func TestQdiscs(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		if f := one(t, "qdiscs", "a0"); f.Name != "noqueue 0:" || f.Fields["parent"] != "root" || f.Fields["limit"] != "" {
			t.Errorf("at first: %+v", f)
		}
		if f := one(t, "qdiscs", "none0"); f.Value != None {
			t.Errorf("no device: %+v", f)
		}
		link, err := netlink.LinkByName("a0")
		must(t, err)
		index := uint32(link.Attrs().Index)
		must(t, netlink.QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       1000, Buffer: netlink.Xmittime(1000, 1600), Limit: 30000,
		}))
		// A child of its own, which the library has no type for.
		m := message{}.U8(0, 0).U16(0).U32(index).U32(0x20000).U32(0x10001).U32(0).Text(1, "pfifo").Attr(2, num(77))
		must(t, kernelnet.Ask(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC, 0, unix.NLM_F_ACK|unix.NLM_F_CREATE, m, func([]byte) error { return nil }))
		got := facts(t, "qdiscs", "a0")
		want := map[string]string{"kind": "tbf", "handle": "1:", "parent": "root", "limit": "30000", "qlen": "0", "backlog": "0", "rate": "1000", "burst": "1600", "linklayer": "unspec"}
		if d := gocmp.Diff(want, named(t, got, "tbf 1:").Fields); d != "" {
			t.Error(d)
		}
		want = map[string]string{"kind": "pfifo", "handle": "2:", "parent": "1:1", "limit": "77", "qlen": "0", "backlog": "0"}
		if d := gocmp.Diff(want, named(t, got, "pfifo 2:").Fields); d != "" {
			t.Error(d)
		}
		var tc []struct {
			Kind   string `json:"kind"`
			Handle string `json:"handle"`
		}
		tool(t, &tc, "tc", "-j", "qdisc", "show", "dev", "a0")
		if len(tc) != len(got) {
			t.Errorf("tc says %+v", tc)
		}
		for _, q := range tc {
			named(t, got, q.Kind+" "+q.Handle)
		}
	})
}

func TestFilters(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		link, err := netlink.LinkByName("a0")
		must(t, err)
		index := link.Attrs().Index
		if f := one(t, "tc-filters", "a0"); f.Value != None {
			t.Errorf("at first: %+v", f)
		}
		needKernel(t, "clsact", netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_CLSACT}}))
		p, id := program(t, ebpf.SchedCLS, -1)
		for parent, pref := range map[uint32]uint16{netlink.HANDLE_MIN_INGRESS: 10, netlink.HANDLE_MIN_EGRESS: 20} {
			needKernel(t, "cls_bpf", netlink.FilterAdd(&netlink.BpfFilter{
				FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: pref},
				Fd:          p.FD(), Name: "pass.o:[tc]", DirectAction: true,
			}))
		}
		got := facts(t, "tc-filters", "a0")
		if len(got) != 2 {
			t.Errorf("got %+v", got)
		}
		for direction, pref := range map[string]string{"ingress": "10", "egress": "20"} {
			want := map[string]string{"direction": direction, "kind": "bpf", "pref": pref, "handle": "0x1", "prog": "pass.o:[tc] id " + decimal(id)}
			f := named(t, got, direction+" "+pref+" bpf")
			if d := gocmp.Diff(want, f.Fields); d != "" || f.Value != "bpf" || f.Command != "tc filter show dev a0 "+direction {
				t.Errorf("%+v: %s", f, d)
			}
		}
		must(t, netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}}))

		// The older ingress has one list of filters, and htb one of its own.
		must(t, netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}}))
		needKernel(t, "htb", netlink.QdiscAdd(netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)})))
		for parent, pref := range map[uint32]uint16{netlink.MakeHandle(0xffff, 0): 5, netlink.MakeHandle(1, 0): 7} {
			needKernel(t, "cls_u32", netlink.FilterAdd(&netlink.U32{
				FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Protocol: unix.ETH_P_IP, Priority: pref},
				ClassId:     netlink.MakeHandle(1, 1),
			}))
		}
		got = facts(t, "tc-filters", "a0")
		if len(got) != 2 {
			t.Errorf("got %+v", got)
		}
		if f := named(t, got, "ingress 5 u32"); f.Fields["handle"] != "0x80000800" || f.Fields["prog"] != "" {
			t.Errorf("got %+v", f)
		}
		if f := named(t, got, "egress 7 u32"); f.Command != "tc filter show dev a0 parent 1:" {
			t.Errorf("got %+v", f)
		}
	})
}

// firewall makes chains with a drop, a reject, a jump and a map of verdicts.
func firewall(t *testing.T) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "my table"})
	drop := nftables.ChainPolicyDrop
	base := &nftables.Chain{
		Name: "in", Table: table, Type: nftables.ChainTypeFilter, Policy: &drop,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityMangle,
	}
	sub, mapped := &nftables.Chain{Name: "sub", Table: table}, &nftables.Chain{Name: "mapped", Table: table}
	for _, chain := range []*nftables.Chain{base, sub, mapped} {
		c.AddChain(chain)
	}
	set := &nftables.Set{Table: table, Name: "ports", IsMap: true, KeyType: nftables.TypeInetService, DataType: nftables.TypeVerdict}
	must(t, c.AddSet(set, []nftables.SetElement{
		{Key: []byte{0, 22}, VerdictData: &expr.Verdict{Kind: expr.VerdictAccept}},
		{Key: []byte{0, 23}, VerdictData: &expr.Verdict{Kind: expr.VerdictDrop}},
		{Key: []byte{0, 80}, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: "mapped"}},
	}))
	port := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	for _, r := range []struct {
		chain *nftables.Chain
		exprs []expr.Any
	}{
		{base, []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}},
		{base, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "sub"}}},
		{base, []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{6}}, port, &expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: "ports"}}},
		{sub, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}},
		{sub, []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}},
		{mapped, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}},
	} {
		c.AddRule(&nftables.Rule{Table: table, Chain: r.chain, Exprs: r.exprs})
	}
	ip := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "empty"})
	c.AddChain(&nftables.Chain{Name: "out", Table: ip, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
	needKernel(t, "nf_tables", c.Flush())
}

func TestNftChains(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		firewall(t)
		got := facts(t, "nft-chains", "")
		if len(got) != 2 {
			t.Fatalf("got %+v", got)
		}
		f := named(t, got, "inet my table in")
		want := map[string]string{"hook": "input", "priority": "-150", "policy": "drop", "rules": "6", "drops": "4"}
		if d := gocmp.Diff(want, f.Fields); d != "" || f.Value != "drop" || f.Command != "nft list chain inet 'my table' in" {
			t.Errorf("%+v: %s", f, d)
		}
		f = named(t, got, "ip empty out")
		want = map[string]string{"hook": "output", "priority": "0", "policy": "accept", "rules": "0", "drops": "0"}
		if d := gocmp.Diff(want, f.Fields); d != "" {
			t.Errorf("%+v: %s", f, d)
		}
		c, err := nftables.New()
		must(t, err)
		c.FlushRuleset()
		must(t, c.Flush())
		if f := one(t, "nft-chains", ""); f.Value != None || f.Name != "nft-chains" {
			t.Errorf("without chains: %+v", f)
		}
	})
}

func TestConntrackCounts(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		c, err := nftables.New()
		must(t, err)
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "track"})
		chain := c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}})
		needKernel(t, "connection tracking", c.Flush())
		for range 3 { // from a port of its own each
			send(t, "127.0.0.1:9", 1)
		}
		f := one(t, "conntrack", "")
		limit, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
		must(t, err)
		if f.Value != "3" || f.Fields["count"] != "3" || f.Fields["max"] != strings.TrimSpace(string(limit)) || f.Fields["buckets"] == "" {
			t.Errorf("got %+v", f)
		}
	})
}

func TestIptablesLegacyTables(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		for range 2 { // the question makes no table
			if f := one(t, "iptables-legacy", ""); f.Value != "" {
				t.Errorf("at first: %+v", f)
			}
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		must(t, err)
		defer unix.Close(fd)
		// IPT_SO_GET_INFO with struct ipt_getinfo makes the table.
		const getInfo = 64
		info := [84]byte{}
		copy(info[:], "filter")
		size := uint32(len(info))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, getInfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if e != 0 {
			needKernel(t, "legacy table filter", e)
		}
		if f := one(t, "iptables-legacy", ""); f.Value != "filter" {
			t.Errorf("got %+v", f)
		}
	})
}

// TestNothingIsLoaded reads one request of every kind.
func TestNothingIsLoaded(t *testing.T) {
	if _, err := os.Stat("/proc/modules"); errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel has no modules to load")
	}
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		args := map[string]string{
			"link": "lo", "qdiscs": "lo", "classes": "lo", "tc-filters": "lo", "neigh": "127.0.0.1 lo", "route": "127.0.0.1", "sysctl": "net/ipv4/ip_forward",
			"cgroup": decimal(os.Getpid()), "ethtool": "lo", "irqs": "lo", "rps": "lo", "sockets": "tcp",
			"bridge-ports": "lo", "bridge-fdb": "02:00:00:00:00:01 lo",
		}
		before := modules(t)
		for _, kind := range Kinds() {
			for _, f := range (&Reader{}).Read(record.FactRequest{Kind: kind, Arg: args[kind]}, ns) {
				// Nobody may know what is built in; the machines mount no cgroups.
				if f.Missing != "" && !strings.Contains(f.Missing, "modules.builtin") && !strings.Contains(f.Missing, "mounted here") {
					t.Errorf("%s: %s", kind, f.Missing)
				}
			}
		}
		if d := gocmp.Diff(before, modules(t)); d != "" {
			t.Error(d)
		}
	})
}

// modules are the names of the modules that are loaded.
func modules(t *testing.T) (names []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/modules")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		names = append(names, line[:strings.IndexByte(line, ' ')])
	}
	return names
}
