package lab

import (
	"context"

	"golang.org/x/sys/unix"
)

// ipv6Disabled sends IPv6 to a host that has it switched off on the device.
func ipv6Disabled() Scenario {
	return Scenario{
		Name:  "ipv6-disabled",
		Title: "IPv6 packets that come in by a device with disable_ipv6=1",
		build: buildIPv6Disabled,
	}
}

func buildIPv6Disabled(t *topology) (*rig, error) {
	if err := t.host.Sysctl("net.ipv6.conf."+hostDevice+".disable_ipv6", "1"); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet6.Addr(), hostNet6.Addr())
	if err := r.sendPacket6(t, newPacket6(r.flow)); err != nil {
		return nil, err
	}
	if err := r.countIn6(t, "Ip6InDiscards"); err != nil {
		return nil, err
	}
	// The kernel took the address away with IPv6, so it is given again, as the
	// remedy says. What arrives is read: a packet that is refused for another
	// reason counts as lost.
	r.prove = func(ctx context.Context, n uint64) (uint64, error) {
		if err := t.addHost6(); err != nil {
			return n, err
		}
		s, err := t.sink6(dstPort)
		if err != nil {
			return n, err
		}
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<22); err != nil {
			return n, err
		}
		if _, err := r.proveEmit(ctx, n); err != nil {
			return n, err
		}
		read, err := s.drain()
		return n - read, err
	}
	return r, nil
}
