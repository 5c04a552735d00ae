package fact

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// maxEntries bounds how many entries an answer shows; all are counted.
const maxEntries = 100

// The question to ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const ctNew, ctGet = 0, 1

// ctFilter says which entries of connection tracking are meant: those that have
// all of it, each in any place.
type ctFilter struct {
	proto uint8 // 0 is any
	ends  []netip.AddrPort
	addrs []netip.Addr
	ports []uint16
}

// checkEntries accepts the words of a filter: a protocol, ADDR, ADDR:PORT,
// [ADDR]:PORT or :PORT; without any all entries are meant.
func checkEntries(arg string) error {
	_, err := parseCtFilter(arg)
	return err
}

func parseCtFilter(arg string) (ctFilter, error) {
	var f ctFilter
	if arg == "" {
		return f, nil
	}
	for word := range strings.SplitSeq(arg, " ") {
		if n, ok := ctProtocols[strings.ToLower(word)]; ok && f.proto == 0 {
			f.proto = n
			continue
		}
		if port, ok := strings.CutPrefix(word, ":"); ok {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
				f.ports = append(f.ports, uint16(n))
				continue
			}
		}
		if a, err := netip.ParseAddr(word); err == nil && a.Zone() == "" {
			f.addrs = append(f.addrs, a.Unmap())
			continue
		}
		if a, err := netip.ParseAddrPort(word); err == nil && a.Addr().Zone() == "" {
			f.ends = append(f.ends, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
			continue
		}
		return f, fmt.Errorf("argument %q: %q is no protocol, ADDR, ADDR:PORT or :PORT", arg, word)
	}
	return f, nil
}

// ctProtocols are the protocols that connection tracking knows.
var ctProtocols = map[string]uint8{
	"icmp": unix.IPPROTO_ICMP, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "dccp": unix.IPPROTO_DCCP, "gre": unix.IPPROTO_GRE,
	"icmpv6": unix.IPPROTO_ICMPV6, "sctp": unix.IPPROTO_SCTP, "udplite": unix.IPPROTO_UDPLITE,
}

func (f ctFilter) matches(e *ctEntry) bool {
	if f.proto != 0 && f.proto != e.orig.proto {
		return false
	}
	ends := []netip.AddrPort{e.orig.src, e.orig.dst, e.reply.src, e.reply.dst}
	anyEnd := func(ok func(netip.AddrPort) bool) bool {
		for _, end := range ends {
			if ok(end) {
				return true
			}
		}
		return false
	}
	for _, want := range f.ends {
		if !anyEnd(func(a netip.AddrPort) bool { return a == want }) {
			return false
		}
	}
	for _, want := range f.addrs {
		if !anyEnd(func(a netip.AddrPort) bool { return a.Addr() == want }) {
			return false
		}
	}
	for _, want := range f.ports {
		if !anyEnd(func(a netip.AddrPort) bool { return a.Port() == want }) {
			return false
		}
	}
	return true
}

// readEntries gives how many entries connection tracking has and how many of
// them a filter means, and the first of these. It reads the whole table: about
// a second for a million entries.
func readEntries(q *query) error {
	q.source, q.command = "nfnetlink IPCTNL_MSG_CT_GET", "conntrack -L"
	filter, err := parseCtFilter(q.arg)
	if err != nil {
		return err
	}
	if ok, err := q.has("nf_conntrack", "nf_conntrack_netlink"); !ok {
		return err
	}
	var list []*ctEntry
	all, matching := uint64(0), uint64(0)
	const subsystem = unix.NFNL_SUBSYS_CTNETLINK << 8
	err = kernelnet.Dump(unix.NETLINK_NETFILTER, subsystem|ctGet, subsystem|ctNew, message{}.U8(unix.AF_UNSPEC, 0, 0, 0), func() {
		list, all, matching = nil, 0, 0
	}, func(b []byte) error {
		e, err := parseCtEntry(b)
		if err != nil {
			return err
		}
		if all++; filter.matches(e) {
			if matching++; matching <= maxEntries {
				list = append(list, e)
			}
		}
		return nil
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil // a kernel without it
	}
	if err != nil {
		return fmt.Errorf("list entries of connection tracking: %w", kernelnet.NeedsCap(err, "CAP_NET_ADMIN"))
	}
	q.add("", decimal(matching), fields{"matching": decimal(matching), "entries": decimal(all), "shown": decimal(len(list))})
	for _, e := range list {
		q.add(e.name(), e.value(), e.fields())
	}
	return nil
}
