package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// The addresses of scenarios with IPv6, of RFC 3849 for documentation. Only
// scenarios that call enableIPv6 have them: everywhere else IPv6 is off.
var (
	hostNet6 = netip.MustParsePrefix("2001:db8::1/64")
	peerNet6 = netip.MustParsePrefix("2001:db8::2/64")
)

const (
	ipv6Len = 40

	protoHopByHop = 0
	protoICMPv6   = 58
)

// quietIPv6 are the settings of a device with which the kernel says nothing by
// itself: no address of its own, no questions for routers, no test for
// duplicates. IPv6 comes on with the last of them.
var quietIPv6 = [...][2]string{
	{"accept_ra", "0"},
	{"autoconf", "0"},
	{"router_solicitations", "0"},
	{"accept_dad", "0"},
	{"dad_transmits", "0"},
	{"addr_gen_mode", "1"},
	{"disable_ipv6", "0"},
}

// enableIPv6 turns IPv6 on for the host's device, gives it hostNet6, and makes
// the peer a permanent neighbour, as the host may answer it. The peer's own
// IPv6 stays off: scenarios send frames that they build themselves.
func (t *topology) enableIPv6() error {
	// What is delivered to the host itself passes lo (net/ipv6/route.c).
	if err := t.host.Sysctl("net.ipv6.conf.lo.disable_ipv6", "0"); err != nil {
		return err
	}
	for _, s := range quietIPv6 {
		if err := t.host.Sysctl("net.ipv6.conf."+hostDevice+"."+s[0], s[1]); err != nil {
			return err
		}
	}
	return errors.Join(t.addHost6(), t.permanent(peerNet6.Addr(), netlab.MAC(peerNet.Addr())))
}

// addHost6 gives the host's device its IPv6 address. It can be used at once.
func (t *topology) addHost6() error {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(hostNet6.String())
	if err != nil {
		return fmt.Errorf("parse address %s: %w", hostNet6, err)
	}
	addr.Flags = unix.IFA_F_NODAD
	if err := t.host.Links().AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %s to %s: %w", hostNet6, hostDevice, err)
	}
	return t.awaitLocal(hostNet6.Addr())
}

// awaitLocal returns when packets for the address are the host's own: a worker
// of the kernel adds that route a moment later, also without a test for
// duplicates (net/ipv6/addrconf.c, addrconf_dad_begin).
func (t *topology) awaitLocal(addr netip.Addr) error {
	const pause = time.Millisecond
	for end := time.Now().Add(defaultPatience); ; time.Sleep(pause) {
		routes, err := t.host.Links().RouteGet(addr.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("address %s is not the host's own after %s: routes %v", addr, defaultPatience, routes), err)
		}
	}
}

// table6 is a value of /proc/net/snmp6 of the host.
func (t *topology) table6(field string) (counter, error) {
	f, err := t.host.Open("snmp6")
	if err != nil {
		return nil, fmt.Errorf("open counters: %w", err)
	}
	t.onClose(f.Close)
	return func() (uint64, error) {
		// It is below 8 KiB on every kernel up to 7.2.
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<16))
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", field, err)
		}
		return parseTable6(string(text), field)
	}, nil
}

// parseTable6 finds a value in lines of a name and a number, as
// net/ipv6/proc.c writes them.
func parseTable6(text, field string) (uint64, error) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 2 || words[0] != field {
			continue
		}
		v, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("counter %s: %w", field, err)
		}
		return v, nil
	}
	return 0, fmt.Errorf("counter %s: %w", field, errNoCounter)
}

// countIn6 makes a value of /proc/net/snmp6 the counter of the loss.
func (r *rig) countIn6(t *topology, field string) error {
	c, err := t.table6(field)
	if err != nil {
		return err
	}
	r.count(c, field, "/proc/net/snmp6", "nstat -az "+field)
	return nil
}

// packet6 is an IPv6 packet in a frame from the peer to the host.
type packet6 struct {
	eth layers.Ethernet
	ip  layers.IPv6
	// before are extension headers as bytes, each with its own length and next
	// header; ip.NextHeader names the first.
	before []byte
	// transport is the header behind them: UDP, or an ICMPv6 message in two
	// layers, or none.
	transport []gopacket.SerializableLayer
}

// newPacket6 is a UDP datagram, or an empty packet of any other protocol.
func newPacket6(f record.Flow) *packet6 {
	p := &packet6{
		eth: etherHeader(layers.EthernetTypeIPv6),
		ip: layers.IPv6{
			Version: 6, HopLimit: 64, NextHeader: layers.IPProtocol(f.Proto),
			SrcIP: f.Src.Addr().AsSlice(), DstIP: f.Dst.Addr().AsSlice(),
		},
	}
	if f.Proto == protoUDP {
		udp := &layers.UDP{SrcPort: layers.UDPPort(f.Src.Port()), DstPort: layers.UDPPort(f.Dst.Port())}
		p.transport = []gopacket.SerializableLayer{udp, gopacket.Payload(make([]byte, payload))}
	}
	return p
}

// extend puts an extension header of 8 bytes in front of what is there, with
// that many bytes of options.
func (p *packet6) extend(kind layers.IPProtocol, options [6]byte) {
	header := append([]byte{byte(p.ip.NextHeader), 0}, options[:]...)
	p.before = append(header, p.before...)
	p.ip.NextHeader = kind
}

// bytes is the frame, with lengths and checksums that are right.
func (p *packet6) bytes() ([]byte, error) {
	for _, l := range p.transport {
		if c, ok := l.(checksummed); ok {
			if err := c.SetNetworkLayerForChecksum(&p.ip); err != nil {
				return nil, fmt.Errorf("make frame: %w", err)
			}
		}
	}
	// gopacket writes a hop-by-hop header of its own where it is told of one,
	// so the whole of what follows the fixed header goes in as bytes.
	inner, err := serialize(p.transport...)
	if err != nil {
		return nil, err
	}
	all := append(append([]byte{}, p.before...), inner...)
	next := p.ip.NextHeader
	if next == layers.IPProtocolIPv6HopByHop {
		p.ip.NextHeader = layers.IPProtocolNoNextHeader
	}
	frame, err := serialize(&p.eth, &p.ip, gopacket.Payload(all))
	if p.ip.NextHeader = next; err != nil {
		return nil, err
	}
	const nextHeaderAt = etherLen + 6
	frame[nextHeaderAt] = byte(next)
	return frame, nil
}

// sendPacket6 makes the peer send that packet as it is.
func (r *rig) sendPacket6(t *topology, p *packet6) error {
	frame, err := p.bytes()
	if err != nil {
		return err
	}
	return r.sendFrame(t, frame)
}

// sink6 is a UDP socket of the host on a port of IPv6, which is read by drain
// alone.
func (t *topology) sink6(port uint16) (*lazySocket, error) {
	fd, err := t.open(t.host, unix.AF_INET6, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)}); err != nil {
		return nil, fmt.Errorf("bind receiver's socket to port %d: %w", port, err)
	}
	s := &lazySocket{fd}
	t.onClose(func() error { _, err := s.drain(); return err })
	return s, nil
}
