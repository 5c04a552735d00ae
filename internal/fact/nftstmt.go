package fact

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Attributes of include/uapi/linux/netfilter/nf_tables.h that the library does
// not have.
const (
	connlimitCount, connlimitFlags           = 1, 2
	synproxyMSS, synproxyScale, synproxyFlag = 1, 2, 3
	lastSet, lastMsecs                       = 1, 2
	flowTableName                            = 1
	exthdrSreg                               = 7
	dynsetExprs                              = 10
)

// act reads an expression that does something, or that counts.
func (d *nftText) act(e kernelnet.NftExpr) bool {
	switch string(e.Name) {
	case "counter":
		if !d.counted {
			d.counted, d.packets, d.bytes = true, e.Num(unix.NFTA_COUNTER_PACKETS), e.Num(unix.NFTA_COUNTER_BYTES)
		}
		d.say("counter")
	case "limit":
		d.say("%s", limitText(e.Attrs))
	case "quota":
		d.quota = decimal(e.Num(unix.NFTA_QUOTA_CONSUMED))
		d.say("quota %s%s", over(e.Num(unix.NFTA_QUOTA_FLAGS)), size(e.Num(unix.NFTA_QUOTA_BYTES)))
	case "connlimit":
		d.say("ct count %s%d", over(e.Num(connlimitFlags)), e.Num(connlimitCount))
	case "last":
		d.say("last")
	case "log":
		d.say("%s", logText(e.Attrs))
	case "notrack":
		d.say("notrack")
	case "immediate": // a number is loaded: see load
		v := e.Nest(unix.NFTA_IMMEDIATE_DATA).Nest(unix.NFTA_DATA_VERDICT)
		d.verdict = verdictText(v)
		d.say("%s", d.verdict)
	case "reject":
		d.reject(e.Attrs)
	case "queue":
		d.verdict = "queue"
		d.say("%s", d.queueText(e.Attrs))
	case "synproxy":
		d.verdict = "synproxy"
		d.say("%s", synproxyText(e.Attrs))
	case "objref":
		d.objref(e.Attrs)
	case "dynset":
		d.dynset(e.Attrs)
	case "flow_offload":
		d.say("flow add @%s", e.Attrs.Text(flowTableName))
	case "match":
		d.match(e.Attrs)
	case "target":
		name := e.Attrs.Text(unix.NFTA_TARGET_NAME)
		d.verdict = name
		options := targetText(d.family == unix.NFPROTO_IPV6, name, uint8(e.Num(unix.NFTA_TARGET_REV)), e.Attrs.Get(unix.NFTA_TARGET_INFO))
		d.say("xt target %s", xtText(name, options))
	default:
		return d.alter(e)
	}
	return true
}

// match writes a match of x_tables, which iptables-nft uses.
func (d *nftText) match(a kernelnet.Attrs) {
	name := a.Text(unix.NFTA_MATCH_NAME)
	if name == "comment" {
		d.comment = a.Text(unix.NFTA_MATCH_INFO)
	}
	options := matchText(d.family == unix.NFPROTO_IPV6, name, uint8(a.Num(unix.NFTA_MATCH_REV)), a.Get(unix.NFTA_MATCH_INFO))
	d.say("xt match %s", xtText(name, options))
}

// alter reads an expression that changes the packet or what goes with it.
func (d *nftText) alter(e kernelnet.NftExpr) bool {
	var to *operand
	var reg uint64
	switch string(e.Name) {
	case "meta":
		to, reg = metaKey(e.Num(unix.NFTA_META_KEY)), e.Num(unix.NFTA_META_SREG)
	case "ct":
		to, reg = d.ctKey(e.Attrs), e.Num(unix.NFTA_CT_SREG)
	case "exthdr":
		to, reg = exthdr(e.Attrs), e.Num(exthdrSreg)
	case "payload":
		d.payloadSet(e.Attrs)
		return true
	default:
		return false
	}
	if reg == 0 {
		d.say("reset %s", to.text) // exthdr without a register removes an option
		return true
	}
	d.say("%s set %s", to.text, d.as(d.fetch(reg), to))
	return true
}

// as writes an operand as a value of another one's type.
func (d *nftText) as(o, to *operand) string {
	if o.value == nil {
		return d.String(o)
	}
	return d.constant(to, o.value)
}

// payloadSet writes a change of the packet. A field that is not of two bytes is
// changed with what stands beside it, which was loaded and masked before.
func (d *nftText) payloadSet(a kernelnet.Attrs) {
	to, o := d.payload(a), d.fetch(a.Num(unix.NFTA_PAYLOAD_SREG))
	if o.mask == nil || o.header != to.header || o.at != to.at {
		d.say("%s set %s", to.text, d.as(o, to))
		return
	}
	inverse := make([]byte, len(o.mask))
	for i := range inverse {
		inverse[i] = ^o.mask[i]
	}
	part := operand{header: to.header, at: to.at, mask: inverse}
	f, shift, ok := maskedField(&part)
	if !ok {
		d.say("%s set %s", to.text, d.String(o))
		return
	}
	field := operand{kind: f.kind, shift: shift}
	d.say("%s %s set %s", to.header, f.name, d.constant(&field, o.xor))
	d.uses(to.header)
}

// over is a word of limits: bit 0 of their flags inverts them.
func over(flags uint64) string {
	if flags&1 != 0 {
		return "over "
	}
	return ""
}

// size writes bytes in the greatest unit that divides them.
func size(n uint64) string {
	unit := 0
	for n > 0 && n%1024 == 0 && unit < 2 {
		n, unit = n/1024, unit+1
	}
	return decimal(n) + []string{" bytes", " kbytes", " mbytes"}[unit]
}

// limitText writes a limit (net/netfilter/nft_limit.c).
func limitText(a kernelnet.Attrs) string {
	unit := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}[a.Num(unix.NFTA_LIMIT_UNIT)]
	if unit == "" {
		unit = decimal(a.Num(unix.NFTA_LIMIT_UNIT)) + " seconds"
	}
	rate, burst := a.Num(unix.NFTA_LIMIT_RATE), a.Num(unix.NFTA_LIMIT_BURST)
	s := "limit rate " + over(a.Num(unix.NFTA_LIMIT_FLAGS))
	if a.Num(unix.NFTA_LIMIT_TYPE) == unix.NFT_LIMIT_PKT_BYTES {
		s += size(rate) + "/" + unit
		if burst > 0 {
			s += " burst " + size(burst)
		}
		return s
	}
	s += decimal(rate) + "/" + unit
	if burst > 0 && burst != 5 { // what nft(8) sets by itself
		s += " burst " + decimal(burst) + " packets"
	}
	return s
}

// logText writes a log (net/netfilter/nft_log.c).
func logText(a kernelnet.Attrs) string {
	s := "log"
	if a.Has(unix.NFTA_LOG_PREFIX) {
		s += " prefix " + strconv.Quote(a.Text(unix.NFTA_LOG_PREFIX))
	}
	if a.Has(unix.NFTA_LOG_GROUP) {
		s += " group " + decimal(a.Num(unix.NFTA_LOG_GROUP))
		if n := a.Num(unix.NFTA_LOG_SNAPLEN); n > 0 {
			s += " snaplen " + decimal(n)
		}
		if n := a.Num(unix.NFTA_LOG_QTHRESHOLD); n > 0 {
			s += " queue-threshold " + decimal(n)
		}
		return s
	}
	levels := []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}
	if n := a.Num(unix.NFTA_LOG_LEVEL); a.Has(unix.NFTA_LOG_LEVEL) && n != 4 && n < uint64(len(levels)) { // 4 is meant without
		s += " level " + levels[n]
	}
	switch flags := a.Num(unix.NFTA_LOG_FLAGS) &^ 0x10; {
	case flags == 0x2f:
		s += " flags all"
	default:
		if tcp := nftFlags(map[uint64]string{1: "sequence", 2: "options"}, flags&3, ","); tcp != "" {
			s += " flags tcp " + tcp
		}
		for bit, name := range map[uint64]string{4: "ip options", 8: "skuid", 0x20: "ether"} {
			if flags&bit != 0 {
				s += " flags " + name
			}
		}
	}
	return s
}

// reject writes a reject. Without a word nft(8) means that a port is
// unreachable, in the protocol of the rule.
func (d *nftText) reject(a kernelnet.Attrs) {
	d.verdict = "reject"
	code := a.Num(unix.NFTA_REJECT_ICMP_CODE)
	if b := a.Get(unix.NFTA_REJECT_ICMP_CODE); len(b) == 1 {
		code = uint64(b[0])
	}
	switch t := a.Num(unix.NFTA_REJECT_TYPE); t {
	case unix.NFT_REJECT_TCP_RST:
		d.say("reject with tcp reset")
	case unix.NFT_REJECT_ICMPX_UNREACH:
		if code == 1 {
			d.say("reject")
			return
		}
		d.say("reject with icmpx %s", nameOr(icmpxCodeNames, code))
	case unix.NFT_REJECT_ICMP_UNREACH:
		protocol, names, port := "icmp", icmpCodeNames, uint64(3)
		if d.network == "ip6" {
			protocol, names, port = "icmpv6", icmpv6CodeNames, 4
		}
		d.uses(d.network)
		if code == port && (d.family == unix.NFPROTO_IPV4 || d.family == unix.NFPROTO_IPV6) {
			d.say("reject")
			return
		}
		d.say("reject with %s %s", protocol, nameOr(names, code))
	default:
		d.say("reject type %d code %d", t, code)
	}
}

// nameOr is the name of a number, or the number.
func nameOr(names map[uint64]string, n uint64) string {
	if s := names[n]; s != "" {
		return s
	}
	return decimal(n)
}

// queueText writes a queue (net/netfilter/nft_queue.c).
func (d *nftText) queueText(a kernelnet.Attrs) string {
	s := "queue"
	if flags := nftFlags(map[uint64]string{1: "bypass", 2: "fanout"}, a.Num(unix.NFTA_QUEUE_FLAGS), ","); flags != "" {
		s += " flags " + flags
	}
	if a.Has(unix.NFTA_QUEUE_SREG_QNUM) {
		return s + " to " + d.String(d.fetch(a.Num(unix.NFTA_QUEUE_SREG_QNUM)))
	}
	first, total := a.Num(unix.NFTA_QUEUE_NUM), a.Num(unix.NFTA_QUEUE_TOTAL)
	s += " to " + decimal(first)
	if total > 1 {
		s += "-" + decimal(first+total-1)
	}
	return s
}

// synproxyText writes a synproxy (net/netfilter/nft_synproxy.c).
func synproxyText(a kernelnet.Attrs) string {
	s, flags := "synproxy", a.Num(synproxyFlag)
	if flags&1 != 0 {
		s += " mss " + decimal(a.Num(synproxyMSS))
	}
	if b := a.Get(synproxyScale); flags&2 != 0 && len(b) == 1 {
		s += " wscale " + decimal(b[0])
	}
	if flags&8 != 0 {
		s += " timestamp"
	}
	if flags&4 != 0 {
		s += " sack-perm"
	}
	return s
}

// objref writes a reference to a named object (NFT_OBJECT_*).
func (d *nftText) objref(a kernelnet.Attrs) {
	what := a.Num(unix.NFTA_OBJREF_IMM_TYPE)
	name := `"` + a.Text(unix.NFTA_OBJREF_IMM_NAME) + `"`
	if a.Has(unix.NFTA_OBJREF_SET_NAME) {
		set := d.set(a.Text(unix.NFTA_OBJREF_SET_NAME))
		size := 0
		if set != nil {
			size = set.keySize
		}
		parts := d.fetchAll(a.Num(unix.NFTA_OBJREF_SET_SREG), size)
		name = d.join(parts) + " map @" + a.Text(unix.NFTA_OBJREF_SET_NAME)
		if set != nil && set.anonymous {
			name = d.join(parts) + " map " + d.elements(set, parts)
		}
		d.say("object %s", name)
		return
	}
	words := []string{
		1: "counter name", 2: "quota name", 3: "ct helper set", 4: "limit name", 5: "ct count name", 6: "tunnel name",
		7: "ct timeout set", 8: "meta secmark set", 9: "ct expectation set", 10: "synproxy name",
	}
	if what == 0 || what >= uint64(len(words)) {
		d.say("object %d %s", what, name)
		return
	}
	d.say("%s %s", words[what], name)
}

// dynset writes a change of a set (net/netfilter/nft_dynset.c).
func (d *nftText) dynset(a kernelnet.Attrs) {
	verb := []string{"add", "update", "delete"}[min(a.Num(unix.NFTA_DYNSET_OP), 2)]
	name := a.Text(unix.NFTA_DYNSET_SET_NAME)
	size := 0
	set := d.set(name)
	if set != nil {
		size = set.keySize
	}
	s := d.join(d.fetchAll(a.Num(unix.NFTA_DYNSET_SREG_KEY), size))
	if ms := a.Num(unix.NFTA_DYNSET_TIMEOUT); ms > 0 {
		s += " timeout " + nftDuration(time.Duration(ms)*time.Millisecond)
	}
	list := a.Get(dynsetExprs)
	var exprs []kernelnet.NftExpr
	if e, err := kernelnet.ParseNftExpr(a.Get(unix.NFTA_DYNSET_EXPR)); err == nil && a.Has(unix.NFTA_DYNSET_EXPR) {
		exprs = append(exprs, e)
	} else if more, err := kernelnet.ParseNftExprs(list, nil); err == nil {
		exprs = more
	}
	for _, e := range exprs { // limits and counters of each element
		inner := nftText{family: d.family, devices: d.devices, set: d.set}
		s += " " + inner.rule([]kernelnet.NftExpr{e})
	}
	if a.Has(unix.NFTA_DYNSET_SREG_DATA) {
		to := &operand{kind: typeHex}
		if set != nil {
			to.kind = setDataType(set.dataType)
			to.host = to.kind.hostOrder()
		}
		s += " : " + d.as(d.fetch(a.Num(unix.NFTA_DYNSET_SREG_DATA)), to)
	}
	d.say("%s @%s { %s }", verb, name, s)
}

// verdictText writes a verdict (enum nft_verdicts, NF_* of
// include/uapi/linux/netfilter.h).
func verdictText(a kernelnet.Attrs) string {
	code := int32(a.Num(unix.NFTA_VERDICT_CODE))
	switch code {
	case kernelnet.NfDrop:
		return "drop"
	case 1:
		return "accept"
	case 3:
		return "queue"
	case unix.NFT_CONTINUE:
		return "continue"
	case unix.NFT_BREAK:
		return "break"
	case unix.NFT_JUMP:
		return "jump " + a.Text(unix.NFTA_VERDICT_CHAIN)
	case unix.NFT_GOTO:
		return "goto " + a.Text(unix.NFTA_VERDICT_CHAIN)
	case unix.NFT_RETURN:
		return "return"
	}
	return fmt.Sprintf("verdict %d", code)
}

// xtText writes an extension of x_tables with its options.
func xtText(name, options string) string {
	if options = strings.TrimSpace(options); options == "" {
		return strconv.Quote(name)
	}
	return strconv.Quote(name) + " (" + options + ")"
}
