package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// Sequence numbers of a connection whose other end is made of frames: that of
// the first byte from there, and that of the first byte from the host.
const (
	theirSeq = 1_000_000
	ourSeq   = 2_000_000
)

// established is a socket of the host with a connection whose other end is not
// there: the peer sends that end's segments as frames, and keeps silent about
// what comes back. So each segment is exactly what a scenario wants it to be.
type established struct {
	fd   int
	flow record.Flow // of the segments to the host
}

// connection says how an established socket begins.
type connection struct {
	port       uint16 // of the other end
	window     uint32 // that the host has announced, in bytes
	rcvbuf     int    // SO_RCVBUF in bytes; 0: as the namespace has it
	timestamps bool
	sack       bool
}

// strangers makes the peer the neighbour behind which synSource is. The peer
// has no such address, so no socket of it answers for a connection.
func (t *topology) strangers() error {
	// A peer that forwards, as it does on a host that does, would answer that
	// there is no such host.
	if err := t.peer.Sysctl("net.ipv4.ip_forward", "0"); err != nil {
		return err
	}
	return t.permanent(synSource, netlab.MAC(peerNet.Addr()))
}

// establish makes a connection without a handshake, as a program does that was
// checkpointed and is restored (TCP_REPAIR, net/ipv4/tcp.c, 3.5 and later). It
// lasts as long as the topology.
func (t *topology) establish(c connection) (*established, error) {
	e, err := t.restored(c)
	if err != nil {
		return nil, err
	}
	t.onClose(e.vanish)
	return e, nil
}

// restored is a connection of which the caller takes care.
func (t *topology) restored(c connection) (*established, error) {
	e := &established{flow: flow(protoTCP, synSource, hostNet.Addr())}
	e.flow = fromPort(e.flow, c.port)
	err := t.host.Do(func() (err error) {
		if e.fd, err = socket(unix.AF_INET, unix.SOCK_STREAM); err != nil {
			return err
		}
		if err = e.restore(c); err != nil {
			err = errors.Join(fmt.Errorf("restore connection from port %d: %w", c.port, err), unix.Close(e.fd))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Names of include/uapi/linux/tcp.h and include/net/tcp.h that x/sys/unix lacks.
const (
	tcpRecvQueue        = 1
	tcpSendQueue        = 2
	tcpQueueSeq         = 21
	tcpOptSACKPermitted = 4
	tcpOptTimestamp     = 8
)

func (e *established) restore(c connection) error {
	set := func(opt, value int) error { return unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, opt, value) }
	reuse := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	err := errors.Join(reuse,
		set(unix.TCP_REPAIR, unix.TCP_REPAIR_ON), unix.Bind(e.fd, sockaddr(e.flow.Dst)),
		set(unix.TCP_REPAIR_QUEUE, tcpSendQueue), set(tcpQueueSeq, ourSeq),
		set(unix.TCP_REPAIR_QUEUE, tcpRecvQueue), set(tcpQueueSeq, theirSeq),
		unix.Connect(e.fd, sockaddr(e.flow.Src)))
	if err != nil {
		return err
	}
	var opts []unix.TCPRepairOpt
	if c.timestamps {
		opts = append(opts, unix.TCPRepairOpt{Code: tcpOptTimestamp})
	}
	if c.sack {
		opts = append(opts, unix.TCPRepairOpt{Code: tcpOptSACKPermitted})
	}
	if len(opts) > 0 {
		if err := unix.SetsockoptTCPRepairOpt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, opts); err != nil {
			return err
		}
	}
	if err := e.announce(c.window); err != nil {
		return err
	}
	if c.rcvbuf > 0 {
		if err := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, c.rcvbuf); err != nil {
			return err
		}
	}
	return set(unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
}

// announce sets the windows: struct tcp_repair_window of
// include/uapi/linux/tcp.h is snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
func (e *established) announce(window uint32) error {
	const theirWindow = 1 << 16
	var b []byte
	for _, v := range []uint32{theirSeq, theirWindow, theirWindow, window, theirSeq} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return unix.SetsockoptString(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, string(b))
}

// vanish closes the socket without a segment and without a wait: a connection
// in repair is not shut down (net/ipv4/tcp.c, __tcp_close). What was not read
// is read first, as it would be freed as if it had been dropped.
func (e *established) vanish() error {
	_, err := e.drain()
	repair := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
	return errors.Join(err, repair, unix.Close(e.fd))
}

// drain reads all that is there and returns how many bytes it was.
func (e *established) drain() (read uint64, err error) {
	var buf [1 << 14]byte
	for {
		n, _, err := unix.Recvfrom(e.fd, buf[:], unix.MSG_DONTWAIT)
		switch {
		case n > 0:
			read += uint64(n)
		case err == nil, errors.Is(err, unix.EAGAIN):
			return read, nil
		case !errors.Is(err, unix.EINTR):
			return read, fmt.Errorf("read connection: %w", err)
		}
	}
}

// segment is a frame with a segment from the other end: an ACK of all that the
// host has sent, with that many bytes. change may make it another one.
func (e *established) segment(seq uint32, size int, change func(*layers.TCP)) ([]byte, error) {
	p := newPacket(e.flow)
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(e.flow.Src.Port()), DstPort: layers.TCPPort(e.flow.Dst.Port()),
		Seq: seq, Ack: ourSeq, ACK: true, Window: 1 << 15,
	}
	if change != nil {
		change(tcp)
	}
	p.transport, p.payload = tcp, make([]byte, size)
	return p.bytes()
}

// timestamp is the option of RFC 7323 with that value and an echo of nothing.
func timestamp(value uint32) layers.TCPOption {
	data := binary.BigEndian.AppendUint32(nil, value)
	return layers.TCPOption{
		OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: append(data, 0, 0, 0, 0),
	}
}

// dropped counts the segments that the socket refused, as ss -m shows them (d):
// SK_MEMINFO_DROPS, the last number of SO_MEMINFO (tcp_drop in
// net/ipv4/tcp_input.c raises it, 4.12 to 7.2).
func (e *established) dropped() (uint64, error) {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(e.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("read drops of connection: %w", errno)
	}
	if uintptr(size) < unsafe.Sizeof(info) {
		return 0, fmt.Errorf("read drops of connection: %d bytes of memory information", size)
	}
	return uint64(info[unix.SK_MEMINFO_DROPS]), nil
}

// read waits for that many bytes from the other end, and reads them.
func (e *established) read(size int, patience time.Duration) error {
	var got uint64
	return await(func() (uint64, error) {
		n, err := e.drain()
		got += n
		return got, err
	}, uint64(size), patience)
}

// ackFIN makes a segment acknowledge that the host ended the connection.
func (e *established) ackFIN(tcp *layers.TCP) { tcp.Ack = ourSeq + 1 }

// peerPorts gives each of many connections a port of its own, until it has
// given all of them.
func peerPorts() func() uint16 {
	const first = 1024
	port := uint16(srcPort)
	return func() uint16 {
		port = max(port+1, first)
		return port
	}
}
