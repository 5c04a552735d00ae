package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tcpLocalQueue holds the host's segments back in its own qdisc for so long
// that TCP wants to send them again. It sees that the first copy is still
// there, and does not (net/ipv4/tcp_output.c, skb_still_in_host_queue).
func tcpLocalQueue() Scenario {
	return Scenario{
		Name:   "tcp-local-queue",
		Title:  "TCP segments that are due to be sent again while the first copy waits in the host's own queue",
		Silent: true,
		build:  buildLocalQueue,
	}
}

// buildLocalQueue sends four segments into a shaper that lets nothing through.
// The other end claims to have the last three: so the first is taken for lost,
// and each further ACK asks for it again. It is by far the longest, for TCP does
// not even try while the queue holds more than four times its memory
// (net/ipv4/tcp_output.c, tcp_small_queue_check).
func buildLocalQueue(t *topology) (*rig, error) {
	const first, others = 900, 3
	// Each write is to be a segment of its own, at once.
	if err := t.host.Sysctl("net.ipv4.tcp_autocorking", "0"); err != nil {
		return nil, err
	}
	if err := t.retransmitLate(); err != nil {
		return nil, err
	}
	r, e, err := newEstablished(t, connection{port: srcPort, window: 1 << 15, sack: true})
	if err != nil {
		return nil, err
	}
	jam, err := t.jam()
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	for _, size := range []int{first, 1, 1, 1} {
		if err := unix.Send(e.fd, make([]byte, size), unix.MSG_DONTWAIT); err != nil {
			return nil, fmt.Errorf("send segment: %w", err)
		}
	}
	frame, err := e.segment(theirSeq, 0, func(tcp *layers.TCP) {
		tcp.Options = []layers.TCPOption{sack(ourSeq+first, ourSeq+first+others)}
	})
	if err != nil {
		return nil, err
	}
	if err := r.sendFrame(t, frame); err != nil {
		return nil, err
	}
	r.repair = func() error {
		if err := t.host.Links().QdiscDel(jam); err != nil {
			return fmt.Errorf("remove qdisc of %s: %w", hostDevice, err)
		}
		return nil
	}
	if err := r.countIn(t, "netstat", "TcpExt", "TCPSpuriousRtxHostQueues", "TcpExtTCPSpuriousRtxHostQueues"); err != nil {
		return nil, err
	}
	return r, r.once(t)
}

// once causes one loss before anybody looks.
func (r *rig) once(t *topology) error {
	before, err := r.lost()
	if err := errors.Join(err, t.peer.Do(r.emit)); err != nil {
		return err
	}
	return await(r.lost, before+1, r.patience)
}

// retransmitLate is a way to the other end on which TCP waits for minutes before
// it sends again by itself, once it has heard from there: that would count too.
func (t *topology) retransmitLate() error {
	const wait = 100_000 // ms
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return err
	}
	err = t.host.Links().RouteAdd(&netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, RtoMin: wait, RtoMinLock: true,
		Dst: &net.IPNet{IP: synSource.AsSlice(), Mask: net.CIDRMask(32, 32)},
	})
	if err != nil {
		return fmt.Errorf("add route to %s: %w", synSource, err)
	}
	return nil
}

// jam puts a rate limit on the host's device and a packet at its head that is
// longer than the limit's burst, and so never gets through. It is let in while
// the burst is longer, as in buildShaper.
func (t *topology) jam() (netlink.Qdisc, error) {
	const (
		long              = 1500 - ipv4Len - udpLen
		burst, smallBurst = 1600, 1100
		smallMTU          = 1000
	)
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	if err := t.host.Links().QdiscAdd(roomy(shaper(link, burst))); err != nil {
		return nil, fmt.Errorf("add qdisc tbf to %s: %w", hostDevice, err)
	}
	at := flow(protoUDP, hostNet.Addr(), peerNet.Addr())
	filler, err := t.udpSender(t.host, at.Src, at.Dst)
	if err != nil {
		return nil, err
	}
	send := filler.datagrams(long)
	for range 2 { // the first uses up the burst
		if err := send(); err != nil {
			return nil, err
		}
	}
	if err := t.host.Links().LinkSetMTU(link, smallMTU); err != nil {
		return nil, fmt.Errorf("set MTU %d of %s: %w", smallMTU, hostDevice, err)
	}
	q := roomy(shaper(link, smallBurst))
	if err := t.host.Links().QdiscChange(q); err != nil {
		return nil, fmt.Errorf("change qdisc tbf of %s: %w", hostDevice, err)
	}
	return q, nil
}

// roomy lets a shaper queue 64 KiB.
func roomy(q netlink.Qdisc) netlink.Qdisc {
	if tbf, ok := q.(*netlink.Tbf); ok {
		tbf.Limit = 1 << 16
	}
	return q
}

// sack is the option of RFC 2018 that says which bytes have arrived.
func sack(from, to uint32) layers.TCPOption {
	data := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, from), to)
	return layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionLength: 10, OptionData: data}
}
