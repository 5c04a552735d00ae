package fact

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// routeRequest is DST and what narrows the question, as in ip route get.
type routeRequest struct {
	dst, src                     netip.Addr
	iif, oif                     string
	mark, tos, uid               uint64
	ipproto, sport, dport        uint64
	hasMark, hasUID              bool
	hasProto, hasSport, hasDport bool
}

// routeWords are the words after DST, in the order that they must have, so
// that one question has one form.
var routeWords = []string{"from", "iif", "oif", "mark", "tos", "uid", "ipproto", "sport", "dport"}

// routeProtos are those that the kernel lets a route be asked for with
// (rtm_getroute_parse_ip_proto of net/ipv4/ip_tunnel_core.c).
var routeProtos = map[string]uint64{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "ipv6-icmp": unix.IPPROTO_ICMPV6}

func checkRoute(arg string) error {
	_, err := parseRouteArg(arg)
	return err
}

func parseRouteArg(arg string) (r routeRequest, err error) {
	words := strings.Split(arg, " ")
	if r.dst, err = parseAddr(words[0]); err != nil {
		return r, err
	}
	bad := fmt.Errorf("argument %q: want DST [from SRC] [iif DEV] [oif DEV] [mark N] [tos N] [uid N] [ipproto P] [sport N] [dport N]", arg)
	last := -1
	for words = words[1:]; len(words) > 0; words = words[2:] {
		place := slices.Index(routeWords, words[0])
		if len(words) < 2 || place <= last {
			return r, bad
		}
		last = place
		if err := r.set(words[0], words[1]); err != nil {
			return r, fmt.Errorf("argument %q: %w", arg, err)
		}
	}
	if (r.hasSport || r.hasDport) && !r.hasProto {
		return r, fmt.Errorf("argument %q: ports need ipproto", arg)
	}
	return r, nil
}

// set takes one word and its value.
func (r *routeRequest) set(word, value string) (err error) {
	switch word {
	case "from":
		if r.src, err = parseAddr(value); err == nil && r.src.Is4() != r.dst.Is4() {
			err = errors.New("IPv4 and IPv6")
		}
	case "iif":
		r.iif, err = value, checkDevice(value)
	case "oif":
		r.oif, err = value, checkDevice(value)
	case "mark":
		r.hasMark = true
		r.mark, err = strconv.ParseUint(value, 0, 32)
	case "tos":
		r.tos, err = strconv.ParseUint(value, 0, 8)
	case "uid":
		r.hasUID = true
		r.uid, err = strconv.ParseUint(value, 10, 32)
	case "ipproto":
		if r.ipproto, r.hasProto = routeProtos[value]; !r.hasProto {
			err = fmt.Errorf("ipproto %q: want tcp, udp, icmp or ipv6-icmp", value)
		}
	case "sport":
		r.hasSport = true
		r.sport, err = strconv.ParseUint(value, 10, 16)
	case "dport":
		r.hasDport = true
		r.dport, err = strconv.ParseUint(value, 10, 16)
	}
	return err
}

// message is struct rtmsg and its attributes (include/uapi/linux/rtnetlink.h).
func (r routeRequest) message(iif, oif, flags uint32) message {
	bits, srcBits := uint8(r.dst.BitLen()), uint8(0)
	if r.src.IsValid() {
		srcBits = bits
	}
	m := message{}.U8(family(r.dst), bits, srcBits, uint8(r.tos), 0, 0, 0, 0).U32(flags)
	m = m.Attr(unix.RTA_DST, r.dst.AsSlice())
	if r.src.IsValid() {
		m = m.Attr(unix.RTA_SRC, r.src.AsSlice())
	}
	num := func(has bool, attr int, v uint64) {
		if has {
			m = m.Attr(attr, native.AppendUint32(nil, uint32(v)))
		}
	}
	num(iif != 0, unix.RTA_IIF, uint64(iif))
	num(oif != 0, unix.RTA_OIF, uint64(oif))
	num(r.hasMark, unix.RTA_MARK, r.mark)
	num(r.hasUID, unix.RTA_UID, r.uid)
	if r.hasProto {
		m = m.Attr(unix.RTA_IP_PROTO, []byte{uint8(r.ipproto)})
	}
	if r.hasSport {
		m = m.Attr(unix.RTA_SPORT, []byte{uint8(r.sport >> 8), uint8(r.sport)})
	}
	if r.hasDport {
		m = m.Attr(unix.RTA_DPORT, []byte{uint8(r.dport >> 8), uint8(r.dport)})
	}
	return m
}

// readRoute gives the kernel's answer to ip route get. A packet that would be
// refused for its source or device (rp_filter, a martian, a source that is not
// local) has no route: its value is "none", and the field error is EXDEV,
// EINVAL or ENETUNREACH, by the kernel's version.
func readRoute(q *query) error {
	r, err := parseRouteArg(q.arg)
	if err != nil {
		return err
	}
	q.source, q.command = "RTM_GETROUTE", "ip route get "+q.shellWords()
	var index [2]uint32
	for i, dev := range []string{r.iif, r.oif} {
		if dev == "" {
			continue
		}
		d, err := deviceByName(dev)
		if errors.Is(err, unix.ENODEV) {
			q.add(q.arg, None, fields{"error": "ENODEV"})
			return nil
		}
		if err != nil {
			return err
		}
		index[i] = d.index
	}
	b, err := get(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, r.message(index[0], index[1], unix.RTM_F_LOOKUP_TABLE))
	if err != nil {
		return q.noRoute(r, err)
	}
	answer, err := parseRoute(b)
	if err != nil {
		return err
	}
	answer.names(deviceNames{})
	// What the question was is not of the route.
	for _, f := range []string{"dst", "from", "iif", "mark", "uid", "tos", "flags", "protocol", "scope", "family"} {
		delete(answer.fields, f)
	}
	r.matched(index[0], index[1], answer.fields)
	q.add(q.arg, answer.kind, answer.fields)
	return nil
}

// shellWords is the argument for a command line.
func (q *query) shellWords() string {
	words := strings.Split(q.arg, " ")
	for i, w := range words {
		words[i] = shell(w)
	}
	return strings.Join(words, " ")
}

// matched adds which entry of the table the kernel took. It knows since 4.13
// (RTM_F_FIB_MATCH); where it does not say, nothing is added.
func (r routeRequest) matched(iif, oif uint32, f fields) {
	b, err := get(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, r.message(iif, oif, unix.RTM_F_LOOKUP_TABLE|unix.RTM_F_FIB_MATCH))
	if err != nil {
		return
	}
	entry, err := parseRoute(b)
	if err != nil {
		return
	}
	entry.names(deviceNames{})
	f["match"] = entry.fields["dst"]
	for _, name := range []string{"metric", "protocol", "paths", "nexthops", "nhid", "expires"} {
		if v, ok := entry.fields[name]; ok && f[name] == "" {
			f[name] = v
		}
	}
}

// noRoute adds the fact for an error (fib_props of net/ipv4/fib_semantics.c,
// ip6_rt_type_to_error of net/ipv6/route.c).
func (q *query) noRoute(r routeRequest, err error) error {
	var value string
	switch {
	case errors.Is(err, unix.EINVAL):
		value = None
		// A black hole refuses everybody, not only this source or device.
		plain := routeRequest{dst: r.dst}
		if _, err := get(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, plain.message(0, 0, unix.RTM_F_LOOKUP_TABLE)); errors.Is(err, unix.EINVAL) {
			value = "blackhole"
		}
	case errors.Is(err, unix.EHOSTUNREACH):
		value = "unreachable"
	case errors.Is(err, unix.EACCES):
		value = "prohibit"
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EAGAIN):
		value = None
	default:
		return fmt.Errorf("ask for route to %s: %w", q.arg, err)
	}
	f := fields{"error": errno(err)}
	if value != None {
		q.refusedBy(r.dst, value, f)
	}
	q.add(q.arg, value, f)
	return nil
}

// refusedBy adds the route that refuses a destination, which the kernel does
// not tell: the one of that type with the longest prefix around it, where no
// other table or rule could be it too.
func (q *query) refusedBy(dst netip.Addr, kind string, f fields) {
	var found []routeAnswer
	best := -1
	err := dumpRoutes(family(dst), func() { found, best = nil, -1 }, func(b []byte) error {
		if routeType(b[7]) != kind || int(b[1]) < best {
			return nil
		}
		r, err := parseRoute(b)
		if err != nil || !r.dst.Contains(dst) {
			return err
		}
		if r.dst.Bits() > best {
			found, best = nil, r.dst.Bits()
		}
		if len(found) < 2 {
			found = append(found, r)
		}
		return nil
	})
	if err != nil || len(found) != 1 {
		return
	}
	rules, err := listRules(family(dst))
	if err != nil || slices.ContainsFunc(rules, func(r rule) bool { return r.action == kind }) {
		return
	}
	f["match"], f["table"] = found[0].fields["dst"], found[0].fields["table"]
}
