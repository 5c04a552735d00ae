package fact

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Attributes of an entry (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaStatus        = 3
	ctaProtoinfo     = 4
	ctaHelp          = 5
	ctaTimeout       = 7
	ctaMark          = 8
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaUse           = 11
	ctaID            = 12
	ctaTupleMaster   = 14
	ctaZone          = 18
	ctaSecctx        = 19
	ctaTimestamp     = 20
	ctaLabels        = 22
	ctaSynproxy      = 24

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3
)

// ctTuple is one direction of an entry.
type ctTuple struct {
	proto    uint8
	src, dst netip.AddrPort
	// icmp is set for a message of ICMP, which has a type, a code and an id.
	icmp       bool
	kind, code uint8
	id         uint16
	zone       string
}

// ctEntry is an entry of connection tracking.
type ctEntry struct {
	orig, reply ctTuple
	status      uint32
	// state is that of TCP, SCTP or DCCP.
	state string
	rest  fields
}

// parseCtEntry reads a message IPCTNL_MSG_CT_NEW (net/netfilter/nf_conntrack_netlink.c,
// ctnetlink_fill_info).
func parseCtEntry(b []byte) (*ctEntry, error) {
	a, err := kernelnet.ParseAttrs(b, kernelnet.SizeofNfgen)
	if err != nil {
		return nil, err
	}
	e := &ctEntry{rest: fields{}}
	if e.orig, err = parseCtTuple(a.Get(ctaTupleOrig)); err != nil {
		return nil, err
	}
	if e.reply, err = parseCtTuple(a.Get(ctaTupleReply)); err != nil {
		return nil, err
	}
	e.status = uint32(a.Num(ctaStatus))
	e.state = ctState(a.Nest(ctaProtoinfo))
	for t, name := range map[int]string{ctaTimeout: "timeout", ctaMark: "mark", ctaUse: "use", ctaID: "id", ctaZone: "zone"} {
		if a.Has(t) {
			e.rest[name] = decimal(a.Num(t))
		}
	}
	e.counters(a)
	e.names(a)
	return e, nil
}

// counters adds packets and bytes, which there are with nf_conntrack_acct, and
// the time of the first packet, with nf_conntrack_timestamp.
func (e *ctEntry) counters(a kernelnet.Attrs) {
	for t, before := range map[int]string{ctaCountersOrig: "", ctaCountersReply: "reply_"} {
		if c := a.Nest(t); a.Has(t) {
			e.rest[before+"packets"], e.rest[before+"bytes"] = decimal(c.Num(1)), decimal(c.Num(2))
		}
	}
	if start := a.Nest(ctaTimestamp).Num(1); start > 0 {
		e.rest["start"] = time.Unix(0, int64(start)).UTC().Format(time.RFC3339)
	}
}

// names adds what only some entries have.
func (e *ctEntry) names(a kernelnet.Attrs) {
	if s := a.Nest(ctaHelp).Text(1); s != "" {
		e.rest["helper"] = s
	}
	if s := a.Nest(ctaSecctx).Text(1); s != "" {
		e.rest["secctx"] = s
	}
	if b := a.Get(ctaLabels); len(b) > 0 && !zeroBits(b) {
		e.rest["labels"] = labelList(b)
	}
	if a.Has(ctaSynproxy) {
		e.rest["synproxy"] = "1"
	}
	if master, err := parseCtTuple(a.Get(ctaTupleMaster)); err == nil && a.Has(ctaTupleMaster) {
		e.rest["master"] = master.String()
	}
}

// labelList is the numbers of the bits that are set, which are in the byte
// order of the host.
func labelList(b []byte) string {
	var list []string
	for i := range 8 * len(b) {
		at := i / 8
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 { // 32 bits at a time
			at = at&^3 + 3 - at&3
		}
		if at < len(b) && b[at]&(1<<(i%8)) != 0 {
			list = append(list, decimal(i))
		}
	}
	return strings.Join(list, ",")
}

// parseCtTuple reads a direction (ctnetlink_dump_tuples).
func parseCtTuple(b []byte) (ctTuple, error) {
	a, err := kernelnet.ParseAttrs(b, 0)
	if err != nil {
		return ctTuple{}, err
	}
	ip, err := kernelnet.ParseAttrs(a.Get(ctaTupleIP), 0)
	if err != nil {
		return ctTuple{}, err
	}
	proto, err := kernelnet.ParseAttrs(a.Get(ctaTupleProto), 0)
	if err != nil {
		return ctTuple{}, err
	}
	var t ctTuple
	one := func(a kernelnet.Attrs, attr int) uint8 {
		if b := a.Get(attr); len(b) == 1 {
			return b[0]
		}
		return 0
	}
	t.proto = one(proto, 1)
	src, dst := address(ip.Get(1)), address(ip.Get(2))
	if ip.Has(3) {
		src, dst = address(ip.Get(3)), address(ip.Get(4))
	}
	t.src = netip.AddrPortFrom(src, uint16(proto.Num(2)))
	t.dst = netip.AddrPortFrom(dst, uint16(proto.Num(3)))
	for _, first := range []int{4, 7} { // CTA_PROTO_ICMP_ID, CTA_PROTO_ICMPV6_ID
		if proto.Has(first) {
			t.icmp, t.id, t.kind, t.code = true, uint16(proto.Num(first)), one(proto, first+1), one(proto, first+2)
		}
	}
	if a.Has(ctaTupleZone) {
		t.zone = decimal(a.Num(ctaTupleZone))
	}
	return t, nil
}

// The states of entries, as conntrack(8) names them (enum tcp_conntrack,
// sctp_conntrack and ct_dccp_states of include/uapi/linux/netfilter).
var (
	tcpCtStates  = []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}
	sctpCtStates = []string{"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"}
	dccpCtStates = []string{"NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE", "INVALID"}
)

func ctState(a kernelnet.Attrs) string {
	for t, names := range map[int][]string{1: tcpCtStates, 2: dccpCtStates, 3: sctpCtStates} {
		b := a.Nest(t).Get(1)
		if !a.Has(t) || len(b) != 1 {
			continue
		}
		if int(b[0]) < len(names) {
			return names[b[0]]
		}
		return decimal(b[0])
	}
	return ""
}

// ctStatusBits are enum ip_conntrack_status
// (include/uapi/linux/netfilter/nf_conntrack_common.h).
var ctStatusBits = []string{
	"EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT", "DST_NAT", "SEQ_ADJUST", "SRC_NAT_DONE", "DST_NAT_DONE", "DYING",
	"FIXED_TIMEOUT", "TEMPLATE", "UNTRACKED", "HELPER", "OFFLOAD", "HW_OFFLOAD",
}

// ends writes the ends of a direction.
func (t ctTuple) ends() (src, dst string) {
	if t.src.Port() == 0 && t.dst.Port() == 0 || t.proto == unix.IPPROTO_GRE {
		return t.src.Addr().String(), t.dst.Addr().String()
	}
	return t.src.String(), t.dst.String()
}

func (t ctTuple) String() string {
	src, dst := t.ends()
	return nameOr(protoNames, uint64(t.proto)) + " " + src + " " + dst
}

// name names the entry by its protocol and the ends of the direction that it
// began in.
func (e *ctEntry) name() string { return e.orig.String() }

// value is the state, if the protocol has some, and whether there were packets
// both ways.
func (e *ctEntry) value() string {
	answered := "UNREPLIED"
	switch {
	case e.status&4 != 0:
		answered = "ASSURED"
	case e.status&2 != 0:
		answered = "SEEN_REPLY"
	}
	return strings.TrimSpace(e.state + " " + answered)
}

func (e *ctEntry) fields() fields {
	f := e.rest
	f["proto"] = nameOr(protoNames, uint64(e.orig.proto))
	var status []string
	for i, name := range ctStatusBits {
		if e.status&(1<<i) != 0 {
			status = append(status, name)
		}
	}
	f["status"] = strings.Join(status, ",")
	if e.state != "" {
		f["state"] = e.state
	}
	for before, t := range map[string]ctTuple{"": e.orig, "reply_": e.reply} {
		f[before+"src"], f[before+"dst"] = t.src.Addr().String(), t.dst.Addr().String()
		switch {
		case t.icmp:
			f[before+"icmp_type"], f[before+"icmp_code"], f[before+"icmp_id"] = decimal(t.kind), decimal(t.code), decimal(t.id)
		case slices.Contains([]uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_UDPLITE}, t.proto):
			f[before+"sport"], f[before+"dport"] = decimal(t.src.Port()), decimal(t.dst.Port())
		case t.proto == unix.IPPROTO_GRE:
			f[before+"srckey"], f[before+"dstkey"] = fmt.Sprintf("0x%x", t.src.Port()), fmt.Sprintf("0x%x", t.dst.Port())
		}
		if t.zone != "" {
			f[before+"zone"] = t.zone
		}
	}
	return f
}
