package fact

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// maxAddresses is how many addresses of a namespace are given.
const maxAddresses = 4096

// localAddr is an address of the host.
type localAddr struct {
	index  uint32
	addr   string
	prefix uint8
	fields fields
}

// readAddresses gives each local address; the value is its device.
func readAddresses(q *query) error {
	q.source, q.command = "RTM_GETADDR", "ip address show"
	var list []localAddr
	total := 0
	m := message{}.U8(unix.AF_UNSPEC, 0, 0, 0).U32(0)
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.RTM_NEWADDR, m, func() { list, total = nil, 0 }, func(b []byte) error {
		a, err := parseLocalAddr(b)
		if a.addr == "" {
			return err
		}
		if total++; total <= maxAddresses {
			list = append(list, a)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	names := deviceNames{}
	for _, a := range list {
		a.fields["dev"], a.fields["prefix"] = names.of(a.index), decimal(a.prefix)
		q.add(a.addr, a.fields["dev"], a.fields)
	}
	q.left(total-len(list), "addresses")
	return nil
}

// deviceNames keeps the names of devices that were asked for.
type deviceNames map[uint32]string

// of returns "" for a device that is gone.
func (n deviceNames) of(index uint32) string {
	name, ok := n[index]
	if !ok {
		if d, err := getDevice(index, nil); err == nil {
			name = d.name
		}
		n[index] = name
	}
	return name
}

// addressFlags are IFA_F_* (include/uapi/linux/if_addr.h). The first is that
// of a second IPv4 address of a network, and of a temporary IPv6 address.
var addressFlags = map[uint32]string{
	0x02: "nodad", 0x04: "optimistic", 0x08: "dadfailed", 0x10: "home", 0x20: "deprecated", 0x40: "tentative",
	0x100: "mngtmpaddr", 0x200: "noprefixroute", 0x400: "autojoin", 0x800: "stable-privacy",
}

// addressParams are those of IFA_* that need no more than their value.
// Lifetimes are in seconds; one for ever is left out.
var addressParams = []param{
	{unix.IFA_LABEL, "label", asText},
	{unix.IFA_BROADCAST, "broadcast", asIP},
	{unix.IFA_ANYCAST, "anycast", asIP},
	{unix.IFA_CACHEINFO, "preferred", at(0, 4, asNumberBut(0xffffffff))},
	{unix.IFA_CACHEINFO, "valid", at(4, 4, asNumberBut(0xffffffff))},
	{unix.IFA_RT_PRIORITY, "metric", asNumber},
	{ifaProto, "protocol", asName("unspec", "kernel_lo", "kernel_ra", "kernel_ll")},
}

// ifaProto is IFA_PROTO (5.18).
const ifaProto = 11

// parseLocalAddr reads struct ifaddrmsg and its attributes. On a
// point-to-point device IFA_ADDRESS is that of the peer and IFA_LOCAL the own
// (include/uapi/linux/if_addr.h).
func parseLocalAddr(b []byte) (localAddr, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return localAddr{}, kernelnet.ErrShort
	}
	a := localAddr{index: native.Uint32(b[4:]), prefix: b[1], fields: fields{"family": familyName(b[0]), "scope": routeScope(b[3])}}
	var addr, local string
	flags := uint32(b[2])
	err := kernelnet.Attributes(b, unix.SizeofIfAddrmsg, func(t int, v []byte) {
		switch t {
		case unix.IFA_ADDRESS:
			addr, _ = asIP(v)
		case unix.IFA_LOCAL:
			local, _ = asIP(v)
		case unix.IFA_FLAGS:
			if n, ok := u32(v); ok {
				flags = n
			}
		}
	})
	a.addr = addr
	if local != "" {
		if addr != local && addr != "" {
			a.fields["peer"] = addr
		}
		a.addr = local
	}
	a.flags(b[0], flags)
	return a, errors.Join(err, decode(b, unix.SizeofIfAddrmsg, addressParams, "", a.fields))
}

// flags names the flags. Most addresses are there for ever, so that the ones
// that are not have a flag instead.
func (a *localAddr) flags(family uint8, flags uint32) {
	const secondary, permanent = 0x01, 0x80
	s, _ := bitNames(flags, addressFlags)
	add := func(word string) {
		if s != "" {
			s += ","
		}
		s += word
	}
	if flags&secondary != 0 {
		add(map[bool]string{true: "temporary", false: "secondary"}[family == unix.AF_INET6])
	}
	if flags&permanent == 0 {
		add("dynamic")
	}
	if s != "" {
		a.fields["flags"] = s
	}
}
