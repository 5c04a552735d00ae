package fact

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// checkNeigh accepts ADDR DEV.
func checkNeigh(arg string) error {
	_, _, err := parseNeighArg(arg)
	return err
}

func parseNeighArg(arg string) (addr netip.Addr, dev string, err error) {
	words := strings.Split(arg, " ")
	if len(words) != 2 {
		return addr, "", fmt.Errorf("argument %q: want ADDR DEV", arg)
	}
	addr, err = parseAddr(words[0])
	return addr, words[1], errors.Join(err, checkDevice(words[1]))
}

// parseAddr reads an address without a zone, IPv4 in its own form.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("argument %q: not an IP address", s)
	}
	return a.Unmap(), nil
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// readNeigh asks for one neighbour, which kernels answer since 5.0 (neigh_get
// of net/core/neighbour.c) without making an entry.
func readNeigh(q *query) error {
	addr, dev, err := parseNeighArg(q.arg)
	if err != nil {
		return err
	}
	q.source, q.command = "RTM_GETNEIGH", fmt.Sprintf("ip neigh get %s dev %s", addr, shell(dev))
	d, err := deviceByName(dev)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	m := message{}.u8(family(addr), 0).u16(0).u32(d.index).u32(0).attr(unix.NDA_DST, addr.AsSlice())
	b, err := get(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, m)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for neighbour %s: %w", q.arg, err)
	}
	state, lladdr, err := parseNeigh(b)
	if err != nil {
		return err
	}
	f := fields{}
	if lladdr != "" {
		f["lladdr"] = lladdr
	}
	q.add(q.arg, state, f)
	return nil
}

// nudStates are the names of NUD_* (include/uapi/linux/neighbour.h), one for
// each bit.
var nudStates = []string{"incomplete", "reachable", "stale", "delay", "probe", "failed", "noarp", "permanent"}

// parseNeigh reads struct ndmsg and its attributes.
func parseNeigh(b []byte) (state, lladdr string, err error) {
	err = eachAttr(b, unix.SizeofNdMsg, func(t int, v []byte) {
		if t == unix.NDA_LLADDR {
			lladdr = hardware(v)
		}
	})
	if err != nil {
		return "", "", err
	}
	state = None
	for i, name := range nudStates {
		if native.Uint16(b[8:])&(1<<i) != 0 {
			state = name
		}
	}
	return state, lladdr, nil
}
