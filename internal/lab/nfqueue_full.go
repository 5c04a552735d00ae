package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nfqueueFull has a firewall rule hand packets to a program that does not
// decide about them.
func nfqueueFull() Scenario {
	return Scenario{
		Name:  "nfqueue-full",
		Title: "packets that a rule hands to an NFQUEUE program whose queue is full, for it decides too slowly",
		build: buildQueueFull,
	}
}

// buildQueueFull fills the queue; the program lets all that wait pass when the
// loss is over.
func buildQueueFull(t *topology) (*rig, error) {
	const number, room, repaired = 77, 10, 1024
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	s, err := listen(t.host, r.flow.Dst.Port())
	if err != nil {
		return nil, err
	}
	t.onClose(s.close)
	q, err := t.bindQueue(number)
	if err != nil {
		return nil, err
	}
	if err := q.setRoom(room); err != nil {
		return nil, err
	}
	if err := t.queueInput(number); err != nil {
		return nil, err
	}
	f, err := t.host.Open("netfilter/nfnetlink_queue")
	if err != nil {
		return nil, fmt.Errorf("open counters: %w", err)
	}
	t.onClose(f.Close)
	const dropped, sequence = 5, 7 // columns: net/netfilter/nfnetlink_queue.c, seq_show
	r.count(queueColumn(f, number, dropped), "nfqueue 77 queue_dropped", "/proc/net/netfilter/nfnetlink_queue",
		"cat /proc/net/netfilter/nfnetlink_queue")
	r.arm = func(ctx context.Context) (uint64, error) {
		return r.send(ctx, room, r.emit, queueColumn(f, number, sequence))
	}
	r.disarm = func() (uint64, error) {
		if err := q.accept(); err != nil {
			return 0, err
		}
		return s.drain()
	}
	r.repair = func() error {
		if err := q.setRoom(repaired); err != nil {
			return err
		}
		return t.serve(q)
	}
	return r, nil
}

// queueInput has what comes for the generator's port handed to a queue, by the
// target of iptables: not every kernel has the expression of nftables that
// does the same.
func (t *topology) queueInput(number uint16) error {
	c, err := t.chain(nftables.TableFamilyIPv4, nftables.Chain{
		Name: "input", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	if err != nil {
		return err
	}
	info := xt.Unknown(binary.NativeEndian.AppendUint16(nil, number))
	info = append(info, make([]byte, 6)...) // struct xt_NFQ_info, padded
	return c.rule(append(toPort(protoUDP, dstPort), &expr.Target{Name: "NFQUEUE", Info: &info})...)
}

// queue is a queue of NFQUEUE and the socket of the program that reads it.
type queue struct {
	number uint16
	socket *nl.NetlinkSocket
}

// Messages and attributes of include/uapi/linux/netfilter/nfnetlink_queue.h.
const (
	queueConfig, queueVerdicts               = 2, 3
	configCommand, configParams, configRoom  = 1, 2, 3
	commandBind, copyMeta                    = 1, 1
	verdictHeader, verdictAccept, lastPacket = 2, 1, 1<<31 - 1
)

// bindQueue makes a program of the host that reads a queue: it gets what the
// kernel knows of each packet, and not the packet.
func (t *topology) bindQueue(number uint16) (*queue, error) {
	q := &queue{number: number}
	err := t.host.Do(func() (err error) {
		q.socket, err = nl.Subscribe(unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open socket for queue %d: %w", number, err)
	}
	t.onClose(func() error { q.socket.Close(); return nil })
	if err := q.request(queueConfig, nl.NewRtAttr(configCommand, []byte{commandBind, 0, 0, unix.AF_INET})); err != nil {
		return nil, fmt.Errorf("bind queue %d: %w", number, err)
	}
	if err := q.request(queueConfig, nl.NewRtAttr(configParams, []byte{0, 0, 0, 0, copyMeta})); err != nil {
		return nil, fmt.Errorf("set copy mode of queue %d: %w", number, err)
	}
	return q, nil
}

// setRoom sets how many packets the queue holds.
func (q *queue) setRoom(packets uint32) error {
	if err := q.request(queueConfig, nl.NewRtAttr(configRoom, nl.BEUint32Attr(packets))); err != nil {
		return fmt.Errorf("set length %d of queue %d: %w", packets, q.number, err)
	}
	return nil
}

// accept lets all packets pass that wait. It asks until none does: the request
// reads away what the kernel tells of a packet that came meanwhile.
func (q *queue) accept() error {
	for {
		if err := q.skim(); err != nil {
			return err
		}
		verdict := binary.BigEndian.AppendUint32(nil, verdictAccept)
		err := q.request(queueVerdicts, nl.NewRtAttr(verdictHeader, binary.BigEndian.AppendUint32(verdict, lastPacket)))
		switch {
		case errors.Is(err, unix.ENOENT): // none waits
			return nil
		case err != nil:
			return fmt.Errorf("accept the packets of queue %d: %w", q.number, err)
		}
	}
}

// skim reads what the kernel has told of packets, so that its answers find room
// in the socket.
func (q *queue) skim() error {
	var buf [1 << 13]byte
	for {
		_, _, err := unix.Recvfrom(q.socket.GetFd(), buf[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("read queue %d: %w", q.number, err)
		}
	}
}

// request sends a message about the queue and waits for the kernel's answer.
func (q *queue) request(message int, attr *nl.RtAttr) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_QUEUE<<8|message, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0, ResId: q.number<<8 | q.number>>8})
	req.AddData(attr)
	if err := q.socket.Send(req); err != nil {
		return err
	}
	for {
		messages, _, err := q.socket.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type != unix.NLMSG_ERROR || m.Header.Seq != req.Seq {
				continue
			}
			if len(m.Data) < 4 {
				return fmt.Errorf("answer of %d bytes", len(m.Data))
			}
			if code := -int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return unix.Errno(code)
			}
			return nil
		}
	}
}

// serve has the program decide at once about each packet from now on, until
// the topology is closed.
func (t *topology) serve(q *queue) error {
	var stop [2]int
	if err := unix.Pipe2(stop[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe of queue %d: %w", q.number, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- q.acceptUntil(stop[0]) }()
	t.onClose(func() error { return errors.Join(unix.Close(stop[1]), <-ended, unix.Close(stop[0])) })
	return nil
}

// acceptUntil accepts all that comes until the other end of stop is closed.
func (q *queue) acceptUntil(stop int) error {
	fds := []unix.PollFd{{Fd: int32(q.socket.GetFd()), Events: unix.POLLIN}, {Fd: int32(stop)}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for packets of queue %d: %w", q.number, err)
		}
		if err := q.accept(); err != nil || fds[1].Revents != 0 {
			return err
		}
	}
}

// queueColumn is a number of a queue in an open
// /proc/net/netfilter/nfnetlink_queue.
func queueColumn(f io.ReaderAt, number uint16, column int) counter {
	return func() (uint64, error) {
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<16))
		if err != nil {
			return 0, fmt.Errorf("read counters of queue %d: %w", number, err)
		}
		return parseQueue(text, number, column)
	}
}

// parseQueue finds a number of a queue: a line for each queue, which begins
// with its own number.
func parseQueue(text []byte, number uint16, column int) (uint64, error) {
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) <= column || string(fields[0]) != strconv.Itoa(int(number)) {
			continue
		}
		v, err := strconv.ParseUint(string(fields[column]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("counters of queue %d: %w", number, err)
		}
		return v, nil
	}
	return 0, fmt.Errorf("counters of queue %d: %w", number, errNoCounter)
}
