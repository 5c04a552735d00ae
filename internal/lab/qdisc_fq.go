package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// qdiscFQFlowLimit has one socket send faster than the queue fq lets it, and
// more than fq keeps of one flow.
func qdiscFQFlowLimit() Scenario {
	return Scenario{
		Name:  "qdisc-fq-flow-limit",
		Title: "datagrams of one socket beyond the packets that fq keeps of one flow (flow_limit)",
		build: func(t *topology) (*rig, error) { return t.fullFQ(10000, 100, 100) },
	}
}

// qdiscFQOther fills fq as a whole, though no flow has too many packets.
func qdiscFQOther() Scenario {
	return Scenario{
		Name:  "qdisc-fq-other",
		Title: "datagrams beyond the packets that fq keeps of all flows together (limit)",
		build: func(t *topology) (*rig, error) { return t.fullFQ(10, 1000, 10) },
	}
}

// fullFQ puts the queue fq before the host's device, and fills it with as many
// packets of one socket, which are to leave in half an hour: the socket paces
// itself (SO_TXTIME), as programs for QUIC and for audio do. A limit of the rate
// would do it too, but lets a packet go each second (net/sched/sch_fq.c,
// fq_dequeue).
//
// The kernel charges a datagram of 600 bytes with 1,280 of the 212,992 that the
// socket has: it could have 167 waiting.
func (t *topology) fullFQ(limit, flowLimit, fill uint32) (*rig, error) {
	const (
		sendBuffer = 212992 / 2 // the kernel doubles it
		length     = 600
		later      = 30 * time.Minute
	)
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	fq := netlink.NewFq(netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
	})
	fq.PacketLimit, fq.FlowPacketLimit = limit, flowLimit
	fq.Horizon = uint32(2 * later / time.Microsecond) // what is to leave later than that is dropped
	if err := t.host.Links().QdiscAdd(fq); err != nil {
		return nil, fmt.Errorf("add qdisc fq to %s: %w", hostDevice, err)
	}
	r := newRig(t)
	r.from, r.flow = t.host, flow(protoUDP, hostNet.Addr(), peerNet.Addr())
	s, err := t.udpSender(t.host, r.flow.Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer); err != nil {
		return nil, fmt.Errorf("set send buffer to %d: %w", sendBuffer, err)
	}
	if r.emit, err = s.timed(length, later); err != nil {
		return nil, err
	}
	for range fill {
		if err := r.emit(); err != nil {
			return nil, fmt.Errorf("fill queue of %s: %w", hostDevice, err)
		}
	}
	stats, err := statsOfQdisc(t.host, link, "fq")
	if err != nil {
		return nil, err
	}
	if stats.Qlen != fill || stats.Drops != 0 {
		return nil, fmt.Errorf("fill queue of %s: %d packets are in it and %d were dropped, want %d and 0", hostDevice, stats.Qlen, stats.Drops, fill)
	}
	r.countQdisc(t, link, "fq")
	return r, nil
}

// timed returns a function that sends a datagram of that many bytes, which is
// to leave so much later than now. A full send buffer is no loss: it says
// errNotLost.
func (s sender) timed(size int, later time.Duration) (func() error, error) {
	// struct sock_txtime of include/uapi/linux/net_tstamp.h.
	clock := binary.NativeEndian.AppendUint32(nil, unix.CLOCK_MONOTONIC)
	clock = append(clock, 0, 0, 0, 0) // flags
	if err := unix.SetsockoptString(s.fd, unix.SOL_SOCKET, unix.SO_TXTIME, string(clock)); err != nil {
		return nil, fmt.Errorf("let generator's socket time its packets: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("read clock: %w", err)
	}
	control := make([]byte, unix.CmsgSpace(8))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level, header.Type = unix.SOL_SOCKET, unix.SCM_TXTIME
	header.SetLen(unix.CmsgLen(8))
	binary.NativeEndian.PutUint64(control[unix.CmsgLen(0):], uint64(now.Nano()+later.Nanoseconds()))
	data := make([]byte, size)
	return func() error {
		for {
			_, err := unix.SendmsgN(s.fd, data, control, s.to, unix.MSG_DONTWAIT)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, unix.EAGAIN):
				return fmt.Errorf("send datagram: %w: %w", errNotLost, err)
			case !errors.Is(err, unix.EINTR):
				return fmt.Errorf("send datagram: %w", err)
			}
		}
	}, nil
}
