package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The scenarios here lose what somebody looks on with: a capture, or who
// listens to what the kernel tells. No packet of the traffic is lost.

// packetSocketFull captures what comes in, and does not read it.
func packetSocketFull() Scenario {
	return Scenario{
		Name:   "packet-socket-full",
		Title:  "copies of packets that a capture (AF_PACKET socket) has no room for; the packets themselves arrive",
		Silent: true,
		build:  buildPacketSocket,
	}
}

func buildPacketSocket(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	if _, err := t.sink(t.host, dstPort); err != nil {
		return nil, err
	}
	c, err := t.capture()
	if err != nil {
		return nil, err
	}
	filler, err := t.udpSender(t.peer, fromPort(r.flow, srcPort+1).Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	delivered, err := t.table("snmp", "Ip", "InDelivers")
	if err != nil {
		return nil, err
	}
	r.observe(c, c.drain, func(ctx context.Context) (uint64, error) {
		return r.send(ctx, fillers, filler.datagrams(fillerBytes), delivered)
	})
	// Reading it sets it back to 0 (packet(7)).
	var sum atomic.Uint64
	r.count(func() (uint64, error) {
		s, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return 0, fmt.Errorf("read statistics of the capture: %w", err)
		}
		return sum.Add(uint64(s.Drops)), nil
	}, "tp_drops of the capture", "PACKET_STATISTICS", "ss -0anm")
	r.repair = r.readAll(t, c, c.drain)
	return r, t.askPacketSockets()
}

// askPacketSockets asks for the list of packet sockets, as ss -0 does, so that
// the kernel loads the module that tells what each has lost (af_packet_diag).
// Nothing else does, and whydrop loads none.
func (t *topology) askPacketSockets() error {
	request := make([]byte, 20) // struct packet_diag_req: family, protocol, inode, what to show, cookie
	request[0] = unix.AF_PACKET
	err := t.host.Do(func() error {
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		req.AddRawData(request)
		_, err := req.Execute(unix.NETLINK_SOCK_DIAG, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("list packet sockets: %w", err)
	}
	return nil
}

// capture is a packet socket that gets a copy of each packet of the host's
// device, as tcpdump has one: before anybody else, so that it never has the last
// reference (net/core/dev.c, __netif_receive_skb_core).
func (t *topology) capture() (*lazySocket, error) {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := t.open(t.host, unix.AF_PACKET, unix.SOCK_RAW)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Attrs().Index}); err != nil {
		return nil, fmt.Errorf("bind capture to %s: %w", hostDevice, err)
	}
	return &lazySocket{fd: fd}, nil
}

// observe has a socket, of which the buffer is filled by fill and then made
// small, lose what comes further.
func (r *rig) observe(s *lazySocket, read func() (uint64, error), fill func(context.Context) (uint64, error)) {
	r.arm = func(ctx context.Context) (uint64, error) {
		if err := s.setBuffer(roomyRcvBuf); err != nil {
			return 0, err
		}
		sent, err := fill(ctx)
		return sent, errors.Join(err, s.setBuffer(1)) // the kernel takes the least that it allows
	}
	r.disarm = read
}

// readAll is a repair: the program has a larger buffer and reads.
func (r *rig) readAll(t *topology, s *lazySocket, read func() (uint64, error)) func() error {
	return func() error {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkBuffer); err != nil {
			return fmt.Errorf("set receive buffer to %d: %w", sinkBuffer, err)
		}
		return t.serveUntilClosed(s.fd, func() error {
			_, err := read()
			return err
		})
	}
}

// netlinkOverrun listens to changes of routes, and does not read them.
func netlinkOverrun() Scenario {
	return Scenario{
		Name:   "netlink-overrun",
		Title:  "messages of the kernel about routes that a program which does not read its netlink socket misses",
		Silent: true,
		build:  buildNetlinkOverrun,
	}
}

func buildNetlinkOverrun(t *topology) (*rig, error) {
	fd := -1
	err := t.host.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	t.onClose(func() error { return unix.Close(fd) })
	const routes = 1 << (unix.RTNLGRP_IPV4_ROUTE - 1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: routes}); err != nil {
		return nil, fmt.Errorf("listen to changes of routes: %w", err)
	}
	r := newRig(t)
	r.from = t.host
	if r.emit, err = t.changeRoutes(); err != nil {
		return nil, err
	}
	s := &lazySocket{fd: fd}
	read := func() (read uint64, err error) {
		err = unix.ENOBUFS // which comes once between messages, for those that are missing
		for n := uint64(0); errors.Is(err, unix.ENOBUFS); read += n {
			n, err = s.drain()
		}
		return read, err
	}
	r.observe(s, read, func(ctx context.Context) (sent uint64, err error) {
		for ; sent < fillers; sent++ {
			if err := ctx.Err(); err != nil {
				return sent, err
			}
			if err := r.emit(); err != nil {
				return sent, err
			}
		}
		return sent, nil
	})
	lost, err := t.netlinkDrops(fd)
	if err != nil {
		return nil, err
	}
	r.count(lost, "drops of the netlink socket", "/proc/net/netlink", "cat /proc/net/netlink")
	r.repair = r.readAll(t, s, read)
	return r, nil
}

// changeRoutes returns a function that adds a route or takes it away again. The
// kernel tells of each with one message.
func (t *topology) changeRoutes() (func() error, error) {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: elsewhere.AsSlice(), Mask: net.CIDRMask(32, 32)},
	}
	there := false
	return func() error {
		change := t.host.Links().RouteAdd
		if there {
			change = t.host.Links().RouteDel
		}
		if err := change(route); err != nil {
			return fmt.Errorf("change route to %s: %w", elsewhere, err)
		}
		there = !there
		return nil
	}, nil
}

// netlinkDrops is what the kernel counts as lost to a netlink socket of the
// host: the columns Drops and Inode of net/netlink/af_netlink.c,
// netlink_native_seq_show.
func (t *topology) netlinkDrops(fd int) (counter, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("find inode of netlink socket: %w", err)
	}
	f, err := t.host.Open("netlink")
	if err != nil {
		return nil, fmt.Errorf("open list of netlink sockets: %w", err)
	}
	t.onClose(f.Close)
	inode := strconv.FormatUint(st.Ino, 10)
	return func() (uint64, error) {
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		if err != nil {
			return 0, fmt.Errorf("read list of netlink sockets: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if columns := strings.Fields(line); len(columns) == 10 && columns[9] == inode {
				return strconv.ParseUint(columns[8], 10, 64)
			}
		}
		return 0, fmt.Errorf("read list of netlink sockets: inode %s is not in it", inode)
	}, nil
}

// unixDgram sends to a unix socket that is not read.
func unixDgram() Scenario {
	return Scenario{
		Name:  "unix-dgram",
		Title: "messages to a unix datagram socket whose queue is full, from a program that does not wait: EAGAIN",
		build: buildUnixDgram,
	}
}

func buildUnixDgram(t *topology) (*rig, error) {
	// A socket takes one more, and keeps the limit that it was made with
	// (net/unix/af_unix.c, unix_recvq_full, unix_create1).
	const limit = 4
	if err := t.host.Sysctl("net.unix.max_dgram_qlen", strconv.Itoa(limit)); err != nil {
		return nil, err
	}
	fd, err := t.open(t.host, unix.AF_UNIX, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	// A name of the network namespace, not of the file system (unix(7)).
	to := &unix.SockaddrUnix{Name: "@whydrop-lab"}
	if err := unix.Bind(fd, to); err != nil {
		return nil, fmt.Errorf("bind unix socket: %w", err)
	}
	from, err := t.open(t.host, unix.AF_UNIX, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	r, s := newRig(t), &lazySocket{fd: fd}
	r.from = t.host
	data, refused := make([]byte, payload), new(atomic.Uint64)
	flags := unix.MSG_DONTWAIT
	r.emit = func() error {
		err := unix.Sendto(from, data, flags, to)
		for errors.Is(err, unix.EINTR) {
			err = unix.Sendto(from, data, flags, to)
		}
		if err = refusedSend(err, unix.EAGAIN); err == nil {
			refused.Add(1)
		}
		return err
	}
	r.arm = func(ctx context.Context) (sent uint64, err error) {
		for ; sent <= limit; sent++ {
			if err := ctx.Err(); err != nil {
				return sent, err
			}
			if err := unix.Sendto(from, data, unix.MSG_DONTWAIT, to); err != nil {
				return sent, fmt.Errorf("fill queue of the unix socket: %w", err)
			}
		}
		return sent, nil
	}
	r.disarm = s.drain
	r.repair = func() error { // the one waits, the other reads
		flags = 0
		return t.read(s)
	}
	r.count(fromSends(refused), "sends that got EAGAIN", "sendto(2)", "strace -e sendto,sendmsg")
	return r, nil
}
