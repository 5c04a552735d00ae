package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// outSpecialRoute cuts off a connection of the host by a route that leads
// nowhere, as tools do that block an address.
func outSpecialRoute() Scenario {
	return Scenario{
		Name:  "out-special-route",
		Title: "segments of a connection of the host to an address that it has a blackhole route for",
		build: buildSpecialRoute,
	}
}

func buildSpecialRoute(t *topology) (*rig, error) {
	if err := t.minuteTimers(); err != nil {
		return nil, err
	}
	fd, err := t.quietConnection()
	if err != nil {
		return nil, err
	}
	to := netip.PrefixFrom(peerNet.Addr(), peerNet.Addr().BitLen())
	dst := &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Bits())}
	if err := t.host.Links().RouteAdd(&netlink.Route{Type: unix.RTN_BLACKHOLE, Dst: dst}); err != nil {
		return nil, fmt.Errorf("add route blackhole %s: %w", to, err)
	}
	r := newRig(t)
	r.from = t.host
	// Every byte makes the kernel try the head of the send queue once more,
	// and lose that copy of it (net/ipv4/tcp_output.c, tcp_write_xmit).
	r.emit = func() error {
		for {
			_, err := unix.Write(fd, []byte{0})
			if err == nil {
				return nil
			}
			if !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("send a byte: %w", err)
			}
		}
	}
	return r, r.countIn(t, "snmp", "Ip", "OutNoRoutes", "IpOutNoRoutes")
}

// minuteTimers keeps the host's TCP from sending again by itself: its timers
// run for a minute on connections by this route (net/ipv4/tcp_input.c,
// tcp_rtt_estimator).
func (t *topology) minuteTimers() error {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return err
	}
	half := netip.PrefixFrom(peerNet.Addr(), 25).Masked()
	const minute = 60_000 // milliseconds
	err = t.host.Links().RouteAdd(&netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst:    &net.IPNet{IP: half.Addr().AsSlice(), Mask: net.CIDRMask(half.Bits(), 32)},
		RtoMin: minute, RtoMinLock: true,
	})
	if err != nil {
		return fmt.Errorf("add route %s with rto_min: %w", half, err)
	}
	return nil
}

// quietConnection is one of the host to the peer, without delay of small segments.
// Nobody reads what comes at its other end.
func (t *topology) quietConnection() (fd int, err error) {
	f := flow(protoTCP, hostNet.Addr(), peerNet.Addr())
	listener, err := t.open(t.peer, unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		return -1, err
	}
	if err := errors.Join(unix.Bind(listener, sockaddr(f.Dst)), unix.Listen(listener, 1)); err != nil {
		return -1, fmt.Errorf("listen on %s: %w", f.Dst, err)
	}
	if fd, err = t.open(t.host, unix.AF_INET, unix.SOCK_STREAM); err != nil {
		return -1, err
	}
	if err := dial(fd, f.Src, f.Dst); err != nil {
		return -1, fmt.Errorf("connect to %s: %w", f.Dst, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	return fd, nil
}
