package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// ctInvalid sends segments of a connection that are far outside of its window,
// which connection tracking calls invalid, and a firewall rule drops them.
func ctInvalid() Scenario {
	return Scenario{
		Name:  "ct-invalid",
		Title: "TCP segments that connection tracking finds invalid (beyond the window), which a firewall rule drops",
		build: buildInvalid,
	}
}

func buildInvalid(t *topology) (*rig, error) {
	r := newRig(t)
	r.flow = flow(protoTCP, peerNet.Addr(), hostNet.Addr())
	c, err := t.chain(nftables.TableFamilyIPv4, nftables.Chain{
		Name: "input", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	if err != nil {
		return nil, err
	}
	if err := r.dropRule(c, "ip", inState(expr.CtStateBitINVALID)...); err != nil {
		return nil, err
	}
	if _, err := t.listenTCP(r.flow.Dst.Port(), 1); err != nil {
		return nil, err
	}
	seq, ack, err := t.sequence(r.flow.Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	p := newPacket(r.flow)
	p.transport = &layers.TCP{
		SrcPort: layers.TCPPort(r.flow.Src.Port()), DstPort: layers.TCPPort(r.flow.Dst.Port()),
		Seq: seq + 1<<28, Ack: ack, ACK: true, PSH: true, Window: 1 << 10,
	}
	p.payload = make([]byte, payload)
	return r, r.sendPacket(t, p)
}

// inState is the match "ct state STATE".
func inState(state uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(state), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// Values of TCP_REPAIR and TCP_REPAIR_QUEUE (include/uapi/linux/tcp.h). The repair
// ends without a probe of the window.
const repairOn, repairOff, recvQueue, sendQueue = 1, -1, 1, 2

// sequence opens a connection of the peer that lasts as long as the topology,
// and returns what it sends and expects next.
func (t *topology) sequence(src, dst netip.AddrPort) (seq, ack uint32, err error) {
	fd, err := t.open(t.peer, unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		return 0, 0, err
	}
	if err := dial(fd, src, dst); err != nil {
		return 0, 0, fmt.Errorf("connect to %s: %w", dst, err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOn); err != nil {
		return 0, 0, fmt.Errorf("look into connection: %w", err)
	}
	seq, errSeq := nextOf(fd, sendQueue)
	ack, errAck := nextOf(fd, recvQueue)
	off := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOff)
	if err := errors.Join(errSeq, errAck, off); err != nil {
		return 0, 0, fmt.Errorf("look into connection: %w", err)
	}
	return seq, ack, nil
}

// nextOf is the next sequence number of a queue of a connection that is under
// repair (tcp(7), TCP_REPAIR_QUEUE).
func nextOf(fd, queue int) (uint32, error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return 0, err
	}
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	return uint32(v), err
}
