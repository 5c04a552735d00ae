package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// receiveAndSend is a repair: from then on the generator sends p, which is as
// it should have been, and somebody in ns receives it.
func (r *rig) receiveAndSend(t *topology, ns *netlab.Namespace, p *packet) func() error {
	return func() error {
		if err := r.sendPacket(t, p); err != nil {
			return err
		}
		_, err := t.sink(ns, dstPort)
		return err
	}
}

// receive makes a receiver for datagrams of the flow in each namespace, where
// there is none: what the cure lets through must not be lost for want of one.
func (s *Setup) receive() error {
	if s.received || s.Flow.Proto != protoUDP {
		return nil
	}
	s.received = true
	for _, ns := range []*netlab.Namespace{s.top.host, s.top.peer, s.top.far} {
		if ns == nil {
			continue
		}
		if _, err := s.top.sink(ns, s.Flow.Dst.Port()); err != nil && !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return nil
}

// receive is a repair: somebody in ns receives from then on.
func (t *topology) receive(ns *netlab.Namespace) func() error {
	return func() error {
		_, err := t.sink(ns, dstPort)
		return err
	}
}

// wayElsewhere is a repair: the host knows a way to elsewhere, where somebody
// receives. The route is more specific than any that a scenario has made.
func (t *topology) wayElsewhere() error {
	if err := t.addFar(); err != nil {
		return err
	}
	dst := &net.IPNet{IP: elsewhere.AsSlice(), Mask: net.CIDRMask(32, 32)}
	if err := t.host.Links().RouteAdd(&netlink.Route{Dst: dst, Gw: farNet.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("add route to %s via %s: %w", elsewhere, farNet.Addr(), err)
	}
	// A route of the far namespace that says that the address is its own.
	local := &netlink.Route{Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
	link, err := t.far.Link("lo")
	if err != nil {
		return err
	}
	local.LinkIndex = link.Attrs().Index
	if err := t.far.Links().RouteAdd(local); err != nil {
		return fmt.Errorf("add address %s: %w", elsewhere, err)
	}
	return t.receive(t.far)()
}

// read reads from a socket what comes, from now on until the topology is
// closed.
func (t *topology) read(s *lazySocket) error {
	_, err := t.readInto(s)
	return err
}

// acceptAll accepts what comes to a listening socket, and closes it.
func (t *topology) acceptAll(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("prepare listening socket: %w", err)
	}
	return t.serveUntilClosed(fd, func() error {
		for {
			conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			switch {
			case err == nil:
				if err := unix.Close(conn); err != nil {
					return fmt.Errorf("close accepted connection: %w", err)
				}
			case errors.Is(err, unix.EAGAIN):
				return nil
			case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED):
				return fmt.Errorf("accept connection: %w", err)
			}
		}
	})
}

// abort makes the close of a connection end it at once, so that its port can
// be taken again.
func abort(fd int) error {
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	return nil
}

// proveArrived is the proof where the counter of the loss counts what is not
// lost, too: what does not arrive is lost. Nothing else may add to arrived.
func (r *rig) proveArrived(arrived counter) func(context.Context, uint64) (uint64, error) {
	return func(ctx context.Context, n uint64) (uint64, error) {
		before, err := arrived()
		if err != nil {
			return 0, err
		}
		if _, err := r.proveEmit(ctx, n); err != nil {
			return 0, err
		}
		_ = await(arrived, before+n, proofPatience)
		after, err := arrived()
		return n - min(n, after-before), err
	}
}

// proofPatience is how long a packet may take to arrive after the cure.
const proofPatience = 2 * time.Second

// proveIntroduced is the proof where packets wait for a neighbour: they are
// sent and then the host is told of it.
func (r *rig) proveIntroduced(t *topology, arrived counter) func(context.Context, uint64) (uint64, error) {
	const most = 256 // packets that may wait: 200 KiB
	return func(ctx context.Context, n uint64) (lost uint64, err error) {
		for sent := uint64(0); sent < n && err == nil; {
			some := min(most, n-sent)
			var before, after, came uint64
			if before, err = r.lost(); err != nil {
				return lost, err
			}
			if came, err = arrived(); err != nil {
				return lost, err
			}
			err = r.from.Do(func() error {
				for range some {
					if err := r.emit(); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return lost, err
			}
			if err := t.permanent(shy, netlab.MAC(peerNet.Addr())); err != nil {
				return lost, err
			}
			// Where the queue was too short still, some never come.
			_ = await(arrived, came+some, proofPatience)
			if err := t.forgetNeighbour(shy); err != nil {
				return lost, err
			}
			if after, err = r.lost(); err != nil {
				return lost, err
			}
			lost += after - before
			sent += some
			err = ctx.Err()
		}
		return lost, err
	}
}
