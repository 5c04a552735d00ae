package fact

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// routeRequest is DST [from SRC] [iif DEV].
type routeRequest struct {
	dst, src netip.Addr
	iif      string
}

func checkRoute(arg string) error {
	_, err := parseRouteArg(arg)
	return err
}

func parseRouteArg(arg string) (r routeRequest, err error) {
	words := strings.Split(arg, " ")
	if r.dst, err = parseAddr(words[0]); err != nil {
		return r, err
	}
	bad := fmt.Errorf("argument %q: want DST [from SRC] [iif DEV]", arg)
	for words = words[1:]; len(words) > 0; words = words[2:] {
		switch {
		case len(words) < 2:
			return r, bad
		case words[0] == "from" && !r.src.IsValid() && r.iif == "":
			if r.src, err = parseAddr(words[1]); err != nil {
				return r, err
			}
			if r.src.Is4() != r.dst.Is4() {
				return r, fmt.Errorf("argument %q: IPv4 and IPv6", arg)
			}
		case words[0] == "iif" && r.iif == "":
			if err = checkDevice(words[1]); err != nil {
				return r, err
			}
			r.iif = words[1]
		default:
			return r, bad
		}
	}
	return r, nil
}

func (r routeRequest) command() string {
	s := "ip route get " + r.dst.String()
	if r.src.IsValid() {
		s += " from " + r.src.String()
	}
	if r.iif != "" {
		s += " iif " + shell(r.iif)
	}
	return s
}

// message is struct rtmsg and its attributes (include/uapi/linux/rtnetlink.h).
func (r routeRequest) message(iif uint32) message {
	bits, srcBits := uint8(r.dst.BitLen()), uint8(0)
	if r.src.IsValid() {
		srcBits = bits
	}
	m := message{}.u8(family(r.dst), bits, srcBits, 0, 0, 0, 0, 0).u32(unix.RTM_F_LOOKUP_TABLE)
	m = m.attr(unix.RTA_DST, r.dst.AsSlice())
	if r.src.IsValid() {
		m = m.attr(unix.RTA_SRC, r.src.AsSlice())
	}
	if iif != 0 {
		m = m.attr(unix.RTA_IIF, native.AppendUint32(nil, iif))
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
	q.source, q.command = "RTM_GETROUTE", r.command()
	var iif uint32
	if r.iif != "" {
		d, err := deviceByName(r.iif)
		if errors.Is(err, unix.ENODEV) {
			q.add(q.arg, None, fields{"error": "ENODEV"})
			return nil
		}
		if err != nil {
			return err
		}
		iif = d.index
	}
	b, err := get(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, r.message(iif))
	if err != nil {
		return q.noRoute(r, err)
	}
	answer, err := parseRoute(b)
	if err != nil {
		return err
	}
	if answer.oif != 0 {
		d, err := getDevice(answer.oif, nil)
		if err != nil {
			return err
		}
		answer.fields["dev"] = d.name
	}
	q.add(q.arg, answer.kind, answer.fields)
	return nil
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
		if _, err := get(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, plain.message(0)); errors.Is(err, unix.EINVAL) {
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
	q.add(q.arg, value, fields{"error": errno(err)})
	return nil
}

// routeTypes are the names of RTN_* (include/uapi/linux/rtnetlink.h).
var routeTypes = map[uint8]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast",
	unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole",
	unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: None,
}

// routeTables are the tables that have a name everywhere.
var routeTables = map[uint32]string{
	unix.RT_TABLE_DEFAULT: "default", unix.RT_TABLE_MAIN: "main", unix.RT_TABLE_LOCAL: "local",
}

// routeAnswer is a route that the kernel gave.
type routeAnswer struct {
	kind   string
	oif    uint32
	fields fields
}

// parseRoute reads struct rtmsg and its attributes.
func parseRoute(b []byte) (routeAnswer, error) {
	if len(b) < unix.SizeofRtMsg {
		return routeAnswer{}, errShort
	}
	r := routeAnswer{kind: routeTypes[b[7]], fields: fields{}}
	if r.kind == "" {
		return r, fmt.Errorf("route of unknown type %d", b[7])
	}
	table := uint32(b[4])
	var bad error
	err := eachAttr(b, unix.SizeofRtMsg, func(t int, v []byte) {
		switch t {
		case unix.RTA_TABLE:
			if n, ok := u32(v); ok {
				table = n
			}
		case unix.RTA_OIF:
			r.oif, _ = u32(v)
		case unix.RTA_GATEWAY:
			r.address("gateway", v)
		case unix.RTA_VIA: // struct rtvia: a family and its address
			if len(v) > 2 {
				r.address("gateway", v[2:])
			}
		case unix.RTA_PREFSRC:
			r.address("src", v)
		case unix.RTA_METRICS:
			bad = eachAttr(v, 0, func(t int, v []byte) {
				if t == unix.RTAX_MTU {
					put32(r.fields, "mtu", v)
				}
			})
		}
	})
	r.fields["table"] = routeTables[table]
	if r.fields["table"] == "" {
		r.fields["table"] = decimal(table)
	}
	return r, errors.Join(err, bad)
}

func (r *routeAnswer) address(name string, b []byte) {
	if a := address(b); a.IsValid() {
		r.fields[name] = a.String()
	}
}
