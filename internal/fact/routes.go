package fact

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// maxRoutes is how many routes of a namespace are given: a router of the
// Internet has a million.
const maxRoutes = 1000

// Ranks of routes: the first are given first where not all can be.
const (
	rankRefuses = iota
	rankDefault
	rankUnicast
	rankException
	rankLocal
	ranks
)

// routeList keeps the messages of the routes to be given. The others are
// counted.
type routeList struct {
	picked [ranks][][]byte
	total  int
}

func (l *routeList) add(b []byte) {
	l.total++
	rank := routeRank(b)
	if len(l.picked[rank]) < maxRoutes {
		l.picked[rank] = append(l.picked[rank], bytes.Clone(b))
	}
}

// routeRank looks at struct rtmsg only.
func routeRank(b []byte) int {
	switch t := b[7]; {
	case native.Uint32(b[8:])&unix.RTM_F_CLONED != 0:
		return rankException
	case t == unix.RTN_BLACKHOLE, t == unix.RTN_UNREACHABLE, t == unix.RTN_PROHIBIT, t == unix.RTN_THROW:
		return rankRefuses
	case t == unix.RTN_UNICAST && b[1] == 0:
		return rankDefault
	case t == unix.RTN_UNICAST:
		return rankUnicast
	}
	return rankLocal
}

// readRoutes gives the routes of all tables, IPv4 and IPv6, with the
// exceptions that the kernel learned, such as path MTUs.
func readRoutes(q *query) error {
	q.source, q.command = "RTM_GETROUTE", "ip -d route show table all; ip -6 -d route show table all"
	var lists [2]routeList
	for i, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		l := &lists[i]
		err := dumpRoutes(fam, func() { *l = routeList{} }, func(b []byte) error {
			l.add(b)
			return nil
		})
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
	}
	list, err := lists[0].routes(&lists[1])
	if err != nil {
		return err
	}
	var hops map[uint32]nexthop
	if slices.ContainsFunc(list, func(r routeAnswer) bool { return r.nhid != 0 }) {
		if hops, err = listNexthops(); err != nil {
			return err
		}
	}
	devices := deviceNames{}
	for i := range list {
		r := &list[i]
		r.resolve(hops)
		r.names(devices)
		q.add(r.name(), r.kind, r.fields)
	}
	q.left(lists[0].total+lists[1].total-len(list), "routes")
	return nil
}

// routes parses the routes of two lists, those of a lower rank first.
func (l *routeList) routes(other *routeList) ([]routeAnswer, error) {
	var out []routeAnswer
	for rank := range ranks {
		for _, b := range slices.Concat(l.picked[rank], other.picked[rank]) {
			if len(out) == maxRoutes {
				return out, nil
			}
			r, err := parseRoute(b)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// dumpRoutes hands the message of each route of a family to each, and never
// one shorter than struct rtmsg. A kernel without the family has none.
func dumpRoutes(fam uint8, begin func(), each func(b []byte) error) error {
	m := message{}.U8(fam, 0, 0, 0, 0, 0, 0, 0).U32(0)
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, m, begin, func(b []byte) error {
		if len(b) < unix.SizeofRtMsg {
			return kernelnet.ErrShort
		}
		if b[0] != fam { // without IPv6, a dump for it gives all families
			return nil
		}
		return each(b)
	})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// nexthop is an object that routes share (net/ipv4/nexthop.c, since 5.3).
type nexthop struct {
	hop
	blackhole bool
	group     []groupMember
}

type groupMember struct {
	id     uint32
	weight int
}

// listNexthops reads the nexthop objects of the namespace, maxNexthops at most.
func listNexthops() (map[uint32]nexthop, error) {
	var list map[uint32]nexthop
	m := message{}.U8(unix.AF_UNSPEC, 0, 0, 0).U32(0)
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, m, func() { list = map[uint32]nexthop{} }, func(b []byte) error {
		id, n, err := parseNexthop(b)
		if err == nil && len(list) < maxNexthops {
			list[id] = n
		}
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return list, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nexthops: %w", err)
	}
	return list, nil
}

const maxNexthops = 1 << 16

// parseNexthop reads struct nhmsg and NHA_* (include/uapi/linux/nexthop.h).
func parseNexthop(b []byte) (id uint32, n nexthop, err error) {
	const (
		sizeofNhmsg  = 8
		sizeofMember = 8 // struct nexthop_grp

		nhaID, nhaGroup, nhaBlackhole, nhaOIF, nhaGateway, nhaEncapType = 1, 2, 4, 5, 6, 7
	)
	err = kernelnet.Attributes(b, sizeofNhmsg, func(t int, v []byte) {
		switch t {
		case nhaID:
			id, _ = u32(v)
		case nhaGroup:
			for ; len(v) >= sizeofMember; v = v[sizeofMember:] {
				n.group = append(n.group, groupMember{native.Uint32(v), nexthopWeight(v)})
			}
		case nhaBlackhole:
			n.blackhole = true
		case nhaOIF:
			n.oif, _ = u32(v)
		case nhaGateway:
			n.gateway, _ = asIP(v)
		case nhaEncapType:
			n.encap, _ = asName(encapTypes...)(v)
		}
	})
	if err == nil {
		n.flags, n.weight = native.Uint32(b[4:]), 1
	}
	return id, n, err
}

// resolve fills in what the kernel leaves to the nexthop object where
// net.ipv4.nexthop_compat_mode is 0.
func (r *routeAnswer) resolve(list map[uint32]nexthop) {
	n, ok := list[r.nhid]
	if r.nhid == 0 || !ok || r.oif != 0 || len(r.hops) > 0 {
		return
	}
	if len(n.group) == 0 {
		r.oif = n.oif
		if n.gateway != "" {
			r.fields["gateway"] = n.gateway
		}
		if n.encap != "" {
			r.fields["encap"] = n.encap
		}
		return
	}
	for _, m := range n.group {
		h := list[m.id].hop
		h.weight = m.weight
		r.hops = append(r.hops, h)
	}
}
