package fact

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
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
	m := message{}.U8(family(addr), 0).U16(0).U32(d.index).U32(0).Attr(unix.NDA_DST, addr.AsSlice())
	b, err := get(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, m)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for neighbour %s: %w", q.arg, err)
	}
	n, err := parseNeigh(b)
	if err != nil {
		return err
	}
	q.add(q.arg, n.state, n.fields)
	return nil
}

// nudStates are the names of NUD_* (include/uapi/linux/neighbour.h), one for
// each bit.
var nudStates = []string{"incomplete", "reachable", "stale", "delay", "probe", "failed", "noarp", "permanent"}

// neighFlags are NTF_*, and NTF_EXT_* above 8 bits.
var neighFlags = map[uint32]string{
	1: "use", 2: "self", 4: "master", 8: "proxy", 16: "extern_learn", 32: "offload", 64: "sticky", 128: "router",
	1 << 8: "managed", 1 << 9: "locked", 1 << 10: "extern_valid",
}

// Flags of an entry that the garbage collector does not count
// (neigh_update_gc_list of net/core/neighbour.c).
const (
	flagExtLearned   = 16
	flagExtValidated = 1 << 10
)

// neighParams are those of NDA_* that need no more than their value. Ages are
// in hundredths of a second (USER_HZ).
var neighParams = []param{
	{unix.NDA_LLADDR, "lladdr", asHardware},
	{unix.NDA_CACHEINFO, "confirmed", at(0, 4, seconds)},
	{unix.NDA_CACHEINFO, "used", at(4, 4, seconds)},
	{unix.NDA_CACHEINFO, "updated", at(8, 4, seconds)},
	{unix.NDA_CACHEINFO, "refcnt", at(12, 4, asNumber)},
	{unix.NDA_PROBES, "probes", asNumber},
	{ndaProtocol, "protocol", asRouteProtocol},
}

// Attributes that the library does not name (include/uapi/linux/neighbour.h).
const (
	ndaProtocol = 12
	ndaFlagsExt = 15
)

func asHardware(b []byte) (string, bool) { return hardware(b), len(b) > 0 }

// seconds is a time of USER_HZ, 100 a second.
func seconds(b []byte) (string, bool) {
	n, ok := numeral(b)
	return decimal(n / 100), ok
}

// neighbour is an entry of a table of neighbours.
type neighbour struct {
	family uint8
	index  uint32
	state  string
	flags  uint32
	fields fields
}

// neighHead reads what struct ndmsg and the flags say, without the rest.
func neighHead(b []byte) (neighbour, error) {
	if len(b) < unix.SizeofNdMsg {
		return neighbour{}, kernelnet.ErrShort
	}
	n := neighbour{family: b[0], index: native.Uint32(b[4:]), state: None, flags: uint32(b[10])}
	for i, name := range nudStates {
		if native.Uint16(b[8:])&(1<<i) != 0 {
			n.state = name
		}
	}
	return n, kernelnet.Attributes(b, unix.SizeofNdMsg, func(t int, v []byte) {
		if t == ndaFlagsExt {
			ext, _ := u32(v)
			n.flags |= ext << 8
		}
	})
}

// parseNeigh reads struct ndmsg and its attributes.
func parseNeigh(b []byte) (neighbour, error) {
	n, err := neighHead(b)
	if err != nil {
		return n, err
	}
	n.fields = fields{}
	if s, ok := bitNames(n.flags, neighFlags); ok {
		n.fields["flags"] = s
	}
	return n, decode(b, unix.SizeofNdMsg, neighParams, "", n.fields)
}
