package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// arpFlux has two devices of the host in one network, of which the wrong one
// answered ARP and then went down.
func arpFlux() Scenario {
	return Scenario{
		Name:  "arp-flux",
		Title: "frames for the MAC of the host's other device, which had answered ARP for this one's address",
		build: buildARPFlux,
	}
}

// buildARPFlux puts both devices of the host and the peer's bridge into one
// network. A bridge floods frames for a MAC that is behind none of its ports,
// so what goes to the device that is down comes in by the other.
func buildARPFlux(t *topology) (*rig, error) {
	if err := t.twoInOneNetwork(); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	read, err := t.sink(t.host, dstPort)
	if err != nil {
		return nil, err
	}
	if err := t.wrongAnswer(r, read); err != nil {
		return nil, err
	}
	if err := t.second(false); err != nil {
		return nil, err
	}
	// After the remedy the device comes back and the peer asks again. What its
	// answers to ARP are is the remedy's doing. Then the device goes once more.
	r.prove = func(ctx context.Context, n uint64) (uint64, error) {
		if err := errors.Join(t.second(true), t.forget()); err != nil {
			return n, err
		}
		if _, err := r.proveEmit(ctx, 1); err != nil {
			return n, err
		}
		if err := t.second(false); err != nil {
			return n, err
		}
		return r.proveEmit(ctx, n)
	}
	return r, r.countForOther(t)
}

// countForOther makes those packets the loss that came to the host's first
// device and not into IP from now on. Kernels before 6.0 do not count them.
func (r *rig) countForOther(t *topology) error {
	came, err := t.received()
	if err != nil {
		return err
	}
	ip, err := t.table("snmp", "Ip", "InReceives")
	if err != nil {
		return err
	}
	before, err := ip()
	if err != nil {
		return err
	}
	since := func() (uint64, error) {
		v, err := ip()
		return v - before, err
	}
	r.count(difference(came, since), "packets on the ingress of "+hostDevice+" - Ip.InReceives",
		"bpf map, /proc/net/snmp", "bpftool map dump name lab; nstat -az IpInReceives")
	return nil
}

// second brings the host's second device up or down.
func (t *topology) second(up bool) error {
	link, err := t.host.Link(secondDevice)
	if err != nil {
		return err
	}
	set := t.host.Links().LinkSetDown
	if up {
		set = t.host.Links().LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set device %s up %v: %w", secondDevice, up, err)
	}
	// The bridge forgets what is behind a port when that has no carrier.
	return t.awaitPort(secondPeer, up)
}

// awaitPort returns when the bridge takes the port for up, or for down.
//
// A worker of the kernel sets a device's state and tells the bridge, both under
// one lock (net/core/link_watch.c, linkwatch_do_dev). It runs once a second but
// for what is urgent, and an end of a veth pair is not urgent if the other end,
// in its own namespace, has the same index (linkwatch_urgent_event). Before 6.8
// the state of a port that has just come up is thus unknown for up to a second,
// or down, and if it loses its carrier meanwhile it stays unknown, and what is
// sent to it is lost. From 6.8 asking for the state does the worker's work
// (net/core/rtnetlink.c, rtnl_getlink). Seen on 5.10 and 6.1, not from 6.12 on.
func (t *topology) awaitPort(device string, up bool) error {
	const pause = time.Millisecond
	for end := time.Now().Add(defaultPatience); ; time.Sleep(pause) {
		port, err := t.peer.Link(device)
		if err != nil {
			return err
		}
		state := port.Attrs().OperState
		down := state == netlink.OperDown || state == netlink.OperLowerLayerDown
		if up && state == netlink.OperUp || !up && down {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("port %s of %s: its state is %s after %s", device, bridgeDevice, state, defaultPatience)
		}
	}
}

// forget makes the peer forget where the host's address is.
func (t *topology) forget() error {
	bridge, err := t.peer.Link(bridgeDevice)
	if err != nil {
		return err
	}
	err = t.peer.Links().NeighDel(&netlink.Neigh{LinkIndex: bridge.Attrs().Index, IP: hostNet.Addr().AsSlice()})
	if err != nil {
		return fmt.Errorf("delete neighbour %s of %s: %w", hostNet.Addr(), bridgeDevice, err)
	}
	return nil
}

var (
	secondHostNet = netip.MustParsePrefix("192.0.2.11/24")
	secondPeerNet = netip.MustParsePrefix("192.0.2.12/24")
)

// twoInOneNetwork joins the host by a second device to the peer's bridge, which
// has the peer's address and both of its ends.
func (t *topology) twoInOneNetwork() error {
	if err := t.addSecondAs(secondHostNet, secondPeerNet); err != nil {
		return err
	}
	links := t.peer.Links()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = bridgeDevice, netlab.MAC(peerNet.Addr())
	snooping := false // with it the bridge itself sends reports
	if err := links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("add bridge %s: %w", bridgeDevice, err)
	}
	bridge, err := t.peer.Link(bridgeDevice)
	if err != nil {
		return err
	}
	for device, addr := range map[string]netip.Prefix{peerDevice: peerNet, secondPeer: secondPeerNet} {
		port, err := t.peer.Link(device)
		if err != nil {
			return err
		}
		old, err := netlink.ParseAddr(addr.String())
		if err != nil {
			return fmt.Errorf("parse address %s: %w", addr, err)
		}
		if err := errors.Join(links.AddrDel(port, old), links.LinkSetMaster(port, bridge)); err != nil {
			return fmt.Errorf("make %s a port of %s: %w", device, bridgeDevice, err)
		}
	}
	if err := links.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set device %s up: %w", bridgeDevice, err)
	}
	if err := t.peer.AddAddr(bridgeDevice, peerNet); err != nil {
		return err
	}
	return errors.Join(t.awaitPort(peerDevice, true), t.awaitPort(secondPeer, true))
}

// wrongAnswer has the peer learn that the host's address is at the MAC of the
// second device, and remember it. Both devices answer for all addresses of the
// host (arp_ignore=0), and the peer takes the answer that comes first: here the
// first device is kept from answering meanwhile.
func (t *topology) wrongAnswer(r *rig, read counter) error {
	const never, hour = "8", "3600000"
	ignore := "net.ipv4.conf." + hostDevice + ".arp_ignore"
	err := errors.Join(
		t.host.Sysctl(ignore, never),
		t.peer.Sysctl("net.ipv4.neigh."+bridgeDevice+".base_reachable_time_ms", hour))
	if err != nil {
		return err
	}
	if err := t.peer.Do(r.emit); err != nil {
		return err
	}
	if err := await(read, 1, r.patience); err != nil {
		return fmt.Errorf("let %s answer ARP for %s: %w", secondDevice, hostNet.Addr(), err)
	}
	return t.host.Sysctl(ignore, "0")
}
