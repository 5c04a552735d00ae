package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// udpSndBufAgain sends from a socket whose send buffer is full and that must
// not wait.
func udpSndBufAgain() Scenario {
	return Scenario{
		Name:   "udp-sndbuf-eagain",
		Title:  "sends of a non-blocking UDP socket whose send buffer is full: EAGAIN, which the kernel counts as SndbufErrors",
		Silent: true,
		build:  buildSndBufAgain,
	}
}

// The send buffer is filled while it is roomy, with packets that a rate limit
// holds back for good (see buildShaper), and then made as small as it can be.
const (
	roomySndBuf = 64 << 10
	heldBytes   = 1500 - ipv4Len - udpLen
	heldPackets = 12
)

// fullSender is a socket whose send buffer is full of what a queue holds back.
type fullSender struct {
	t    *topology
	r    *rig
	link netlink.Link
	s    sender
	// read counts what the receiver has read; before is that before the filling.
	read   counter
	before uint64
	held   uint64 // sent by fill, and not released yet
	// waits says that the program waits until there is room, as it should.
	waits bool
}

func buildSndBufAgain(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
		return nil, err
	}
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	if err := t.host.Links().QdiscAdd(limiter(link, 1600, 400)); err != nil {
		return nil, fmt.Errorf("add qdisc tbf to %s: %w", hostDevice, err)
	}
	f := &fullSender{t: t, r: r, link: link}
	if f.s, err = t.udpSender(t.host, fromPort(r.flow, srcPort+1).Src, r.flow.Dst); err != nil {
		return nil, err
	}
	if f.read, err = t.sink(t.peer, dstPort); err != nil {
		return nil, err
	}
	r.flow.Src = fromPort(r.flow, srcPort+1).Src
	kick := r.emit
	r.arm = f.fill
	r.emit = f.send
	r.disarm = func() (uint64, error) { return f.release(kick) }
	r.repair = func() error { f.waits = true; return nil }
	return r, r.countIn(t, "snmp", "Udp", "SndbufErrors", "UdpSndbufErrors")
}

// limiter is a rate limit with room for all that is sent here.
func limiter(link netlink.Link, burst uint32, rate uint64) netlink.Qdisc {
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
		},
		Rate: rate, Limit: 1 << 20, Buffer: netlink.Xmittime(rate, burst),
	}
}

// limit changes the MTU and the rate limit of the device.
func (f *fullSender) limit(mtu int, burst uint32, rate uint64) error {
	if err := f.t.host.Links().LinkSetMTU(f.link, mtu); err != nil {
		return fmt.Errorf("set MTU %d of %s: %w", mtu, hostDevice, err)
	}
	if err := f.t.host.Links().QdiscChange(limiter(f.link, burst, rate)); err != nil {
		return fmt.Errorf("change qdisc tbf of %s: %w", hostDevice, err)
	}
	return nil
}

func (f *fullSender) fill(ctx context.Context) (sent uint64, err error) {
	defer func() { f.held = sent }()
	if err := errors.Join(ctx.Err(), f.s.setBuffer(roomySndBuf), f.limit(1500, 1600, 400)); err != nil {
		return 0, err
	}
	if f.before, err = f.read(); err != nil {
		return 0, err
	}
	send := f.s.datagrams(heldBytes)
	for ; sent < heldPackets; sent++ {
		if err := send(); err != nil {
			return sent, err
		}
	}
	// What waits is longer than the burst from now on, and so never gets through.
	return sent, errors.Join(f.s.setBuffer(1), f.limit(1000, 1100, 400))
}

// send is one that the socket has no room for.
func (f *fullSender) send() error {
	flags := unix.MSG_DONTWAIT
	if f.waits {
		flags = 0
	}
	err := unix.Sendto(f.s.fd, make([]byte, payload), flags, f.s.to)
	for errors.Is(err, unix.EINTR) {
		err = unix.Sendto(f.s.fd, make([]byte, payload), flags, f.s.to)
	}
	return refusedSend(err, unix.EAGAIN)
}

// release lets go what waits, and returns how many datagrams of those that
// fill sent have arrived. One more has to be sent for the queue to go on.
func (f *fullSender) release(kick func() error) (read uint64, err error) {
	if f.held == 0 {
		return 0, nil
	}
	const rate = 1 << 20 // bytes a second: slow enough to fill a small buffer again
	if err := errors.Join(f.limit(1500, 1<<11, rate), f.t.host.Do(kick)); err != nil {
		return 0, err
	}
	if err := await(f.read, f.before+f.held+1, f.r.patience); err != nil {
		return 0, err
	}
	f.held = 0
	after, err := f.read()
	return after - f.before - 1, err
}
