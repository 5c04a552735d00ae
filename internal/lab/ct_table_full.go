package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// ctTableFull opens one connection more than the host can track.
func ctTableFull() Scenario {
	return Scenario{
		Name:  "ct-table-full",
		Title: "packets of new connections while the connection tracking table is full",
		build: buildTableFull,
	}
}

// maxEntries bounds the entries that the lab makes, of 320 bytes each.
const maxEntries = 1 << 19

// buildTableFull fills the table of the host's namespace up to the limit that
// the machine has: each namespace is held to the same limit, and no other than
// the first may change it (net/netfilter/nf_conntrack_core.c, __nf_conntrack_alloc;
// 5.10 to 7.2). A quarter of a million entries take
// half a second and 100 MB, until the topology is closed.
func buildTableFull(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	if err := t.trackConnections(); err != nil {
		return nil, err
	}
	limit, err := conntrackSetting(t.host, "max")
	if err != nil {
		return nil, err
	}
	if limit == 0 || limit > maxEntries {
		return nil, fmt.Errorf("fill connection tracking table: nf_conntrack_max is %d, the lab takes 1 to %d", limit, maxEntries)
	}
	if err := t.host.Do(func() error { return addConnections(uint32(limit)) }); err != nil {
		return nil, fmt.Errorf("fill connection tracking table: %w", err)
	}
	if count, err := conntrackSetting(t.host, "count"); err != nil || count != limit {
		return nil, errors.Join(err, fmt.Errorf("fill connection tracking table: it holds %d of %d entries", count, limit))
	}
	f, err := t.host.Open("stat/nf_conntrack")
	if err != nil {
		return nil, fmt.Errorf("open counters: %w", err)
	}
	t.onClose(f.Close)
	r.count(conntrackDrops(f), "nf_conntrack.drop", "/proc/net/stat/nf_conntrack", "conntrack -S")
	return r, nil
}

// trackConnections makes a rule that asks for the state of a connection: the
// kernel tracks those of a namespace only where a rule needs it.
func (t *topology) trackConnections() error {
	chain, err := t.nftChain("input", nftables.ChainHookInput)
	if err != nil {
		return err
	}
	chain.conn.AddRule(&nftables.Rule{
		Table: chain.Table, Chain: chain.Chain,
		Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}},
	})
	if err := chain.conn.Flush(); err != nil {
		return fmt.Errorf("add nftables rule: %w", err)
	}
	return nil
}

// conntrackSetting reads net.netfilter.nf_conntrack_NAME.
func conntrackSetting(ns *netlab.Namespace, name string) (v uint64, err error) {
	path := "/proc/sys/net/netfilter/nf_conntrack_" + name
	err = ns.Do(func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read setting: %w", err)
		}
		if v, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
			return fmt.Errorf("read setting %s: %w", path, err)
		}
		return nil
	})
	return v, err
}

// addConnections makes n entries in the namespace of the calling thread, each
// of a UDP flow of its own that lasts for a day. They are assured: others would
// have to go when the table is full (early_drop).
func addConnections(n uint32) error {
	const perMessage = 200 // of 140 bytes: far below the socket's buffer
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer unix.Close(fd)
	one := newEntry()
	var all []byte
	for i := range n {
		one.setSource(i)
		all = append(all, one.request...)
		if (i+1)%perMessage != 0 && i+1 != n {
			continue
		}
		if err := unix.Sendto(fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("send %d netlink requests: %w", len(all)/len(one.request), err)
		}
		if err := netlinkError(fd); err != nil {
			return fmt.Errorf("make entry %d: %w", i, err)
		}
		all = all[:0]
	}
	return nil
}

// netlinkError is what the kernel answered: it does only where it could not do
// something.
func netlinkError(fd int) error {
	var buf [256]byte
	n, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return fmt.Errorf("read answer of netlink: %w", err)
	case n < unix.SizeofNlMsghdr+unix.SizeofNlMsgerr:
		return fmt.Errorf("answer of netlink has %d bytes", n)
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])))
}

// entry is a request to make an entry of the table.
type entry struct {
	request []byte
	sources [2]int // where it has the source address
}

func newEntry() *entry {
	const status, lasting = 1<<1 | 1<<2 | 1<<3, 24 * 3600 // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED; seconds
	source, dst := []byte{10, 0xfe, 0xdc, 0xba}, hostNet.Addr().AsSlice()
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(tuple(nl.CTA_TUPLE_ORIG, source, dst, srcPort, dstPort+1))
	req.AddData(tuple(nl.CTA_TUPLE_REPLY, dst, source, dstPort+1, srcPort))
	req.AddData(nl.NewRtAttr(nl.CTA_STATUS, nl.BEUint32Attr(status)))
	req.AddData(nl.NewRtAttr(nl.CTA_TIMEOUT, nl.BEUint32Attr(lasting)))
	e := &entry{request: req.Serialize()}
	e.sources = [2]int{bytes.Index(e.request, source), bytes.LastIndex(e.request, source)}
	return e
}

// setSource makes the flow the one number i.
func (e *entry) setSource(i uint32) {
	for _, at := range e.sources {
		binary.BigEndian.PutUint32(e.request[at:], 10<<24|i)
	}
}

func tuple(kind int, src, dst []byte, sport, dport uint16) *nl.RtAttr {
	t := nl.NewRtAttr(unix.NLA_F_NESTED|kind, nil)
	ip := t.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
	ip.AddRtAttr(nl.CTA_IP_V4_SRC, src)
	ip.AddRtAttr(nl.CTA_IP_V4_DST, dst)
	proto := t.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
	proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{protoUDP})
	proto.AddRtAttr(nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, sport))
	proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, dport))
	return t
}

// conntrackDrops counts the packets that connection tracking dropped, in an
// open /proc/net/stat/nf_conntrack.
func conntrackDrops(f io.ReaderAt) counter { return conntrackColumn(f, "drop") }

// conntrackColumn is a column of an open /proc/net/stat/nf_conntrack.
func conntrackColumn(f io.ReaderAt, name string) counter {
	return func() (uint64, error) {
		// A line of 17 numbers for each CPU.
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err != nil {
			return 0, fmt.Errorf("read nf_conntrack.%s: %w", name, err)
		}
		return parseConntrack(text, name)
	}
}

// parseConntrackDrops adds up the column "drop".
func parseConntrackDrops(text []byte) (sum uint64, err error) { return parseConntrack(text, "drop") }

// parseConntrack adds up a column: names in the first line, and hexadecimal
// numbers in one line for each CPU.
func parseConntrack(text []byte, name string) (sum uint64, err error) {
	column := -1
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if column < 0 {
			if column = slices.Index(fields, name); column < 0 {
				return 0, fmt.Errorf("counter nf_conntrack.%s: %w", name, errNoCounter)
			}
			continue
		}
		if len(fields) <= column {
			return 0, fmt.Errorf("counter nf_conntrack.%s: a line of %d values", name, len(fields))
		}
		v, err := strconv.ParseUint(fields[column], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("counter nf_conntrack.%s: %w", name, err)
		}
		sum += v
	}
	if column < 0 {
		return 0, fmt.Errorf("counter nf_conntrack.%s: %w", name, errNoCounter)
	}
	return sum, nil
}
