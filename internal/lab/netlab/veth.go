package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// End is one end of a veth pair.
type End struct {
	NS   *Namespace
	Name string
	// Addr is the IPv4 address of the end and the network behind the pair.
	Addr netip.Prefix
}

// MAC is the address that Veth gives to the end with that IPv4 address: a
// locally administered one made of it.
func MAC(addr netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0}, addr.AsSlice()...)
}

func (e End) mac() net.HardwareAddr { return MAC(e.Addr.Addr()) }

// Veth joins a and b with a veth pair and brings both ends up. They know each
// other by a permanent neighbour entry: the first packet would otherwise be
// preceded by ARP, one packet more than a test counts.
func Veth(a, b End) error {
	if !a.Addr.Addr().Is4() || !b.Addr.Addr().Is4() {
		return fmt.Errorf("add veth pair %s %s: addresses %s and %s are not both IPv4", a.Name, b.Name, a.Addr, b.Addr)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Name
	attrs.HardwareAddr = a.mac()
	err := a.NS.links.LinkAdd(&netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         b.Name,
		PeerHardwareAddr: b.mac(),
		PeerNamespace:    netlink.NsFd(b.NS.fd),
	})
	if err != nil {
		return fmt.Errorf("add veth pair %s %s: %w", a.Name, b.Name, err)
	}
	if err := a.configure(b); err != nil {
		return err
	}
	if err := b.configure(a); err != nil {
		return err
	}
	return a.awaitCarrier()
}

func (e End) configure(other End) error {
	if err := e.NS.up(e.Name); err != nil {
		return err
	}
	if err := e.NS.AddAddr(e.Name, e.Addr); err != nil {
		return err
	}
	link, err := e.NS.Link(e.Name)
	if err != nil {
		return err
	}
	err = e.NS.links.NeighSet(&netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		State:        netlink.NUD_PERMANENT,
		IP:           other.Addr.Addr().AsSlice(),
		HardwareAddr: other.mac(),
	})
	if err != nil {
		return fmt.Errorf("set neighbour %s on %s: %w", other.Addr.Addr(), e.Name, err)
	}
	return nil
}

// awaitCarrier returns when the end can send. The one that came up first gets
// its carrier from the other, and a worker of the kernel lets it send after
// that (net/core/link_watch.c, linkwatch_do_dev): packets before are dropped.
// The other can send at once, though kernels before 6.8 show it a second late.
func (e End) awaitCarrier() error {
	const patience, pause = 20 * time.Second, time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		link, err := e.NS.Link(e.Name)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("device %s: its state is %s after %s", e.Name, link.Attrs().OperState, patience)
		}
	}
}

// AddAddr gives a device an address and its network.
func (n *Namespace) AddAddr(device string, addr netip.Prefix) error {
	link, err := n.Link(device)
	if err != nil {
		return err
	}
	if err := n.links.AddrAdd(link, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
		return fmt.Errorf("add address %s to %s: %w", addr, device, err)
	}
	return nil
}

// AddRoute sends a network out of a device.
func (n *Namespace) AddRoute(network netip.Prefix, device string) error {
	link, err := n.Link(device)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(network), Scope: netlink.SCOPE_LINK}
	if err := n.links.RouteAdd(route); err != nil {
		return fmt.Errorf("add route %s dev %s: %w", network, device, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}
}
