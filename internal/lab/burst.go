package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxBurst bounds the packets of one burst: that many rounds the verifier of
// the oldest kernel still follows.
const maxBurst = 3072

// burst sends many packets at once: no softirq of the sender's CPU runs between
// two of them, so all wait for it together. Programs that send in a loop give
// the CPU back after each packet, and the queue never fills.
//
// A filter on the egress of the peer's device makes copies of a packet, as many
// as the first element of its array says, and the second counts them. The
// filters of egress run with softirqs off (net/core/dev.c, __dev_queue_xmit; 5.10
// to 7.2). A kernel that tells the filter of each copy that is lost (6.6 and
// later: drivers/net/veth.c, veth_xmit returns NET_XMIT_DROP) has it stop after
// as many as the third element says.
type burst struct {
	array   *ebpf.Map
	trigger sender
	// receiver holds what got through until it is read.
	receiver *lazySocket
	read     uint64
	// cpu is where the bursts are sent from; -1 for any.
	cpu int
}

// Elements of the array.
const (
	burstCopies = iota
	burstSent
	burstLosses
	burstElements
)

// newBurst sends datagrams from the peer to a socket of the host.
func newBurst(t *topology, r *rig) (*burst, error) {
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	b := &burst{cpu: -1}
	var err error
	if b.trigger, err = t.udpSender(t.peer, r.flow.Src, r.flow.Dst); err != nil {
		return nil, err
	}
	if b.receiver, err = listen(t.host, r.flow.Dst.Port()); err != nil {
		return nil, err
	}
	t.onClose(b.receiver.close)
	// Far more than a burst takes; more than net.core.rmem_max allows without force.
	const buffer = 16 << 20
	if err := unix.SetsockoptInt(b.receiver.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		return nil, fmt.Errorf("set receive buffer to %d: %w", buffer, err)
	}
	moreMemory()
	b.array, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "lab", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: burstElements,
	})
	if err != nil {
		return nil, fmt.Errorf("make map for a burst: %w", err)
	}
	t.onClose(b.array.Close)
	link, err := t.peer.Link(peerDevice)
	if err != nil {
		return nil, err
	}
	return b, addFilter(t.peer, link, netlink.HANDLE_MIN_EGRESS, copies(b.array, link.Attrs().Index))
}

// send sends one burst of so many packets, or fewer if losses of them were lost
// before and the kernel tells. It is called on a thread in the peer's namespace,
// and returns how many were sent.
func (b *burst) send(packets, losses uint64) (sent uint64, err error) {
	if packets > maxBurst {
		return 0, fmt.Errorf("send %d packets at once: at most %d are possible", packets, maxBurst)
	}
	for i, v := range []uint64{burstCopies: packets, burstSent: 0, burstLosses: losses} {
		if err := b.array.Put(uint32(i), v); err != nil {
			return 0, fmt.Errorf("write map: %w", err)
		}
	}
	err = b.trigger.datagrams(payload)()
	if lerr := b.array.Lookup(uint32(burstSent), &sent); lerr != nil {
		return 0, errors.Join(err, fmt.Errorf("read map: %w", lerr))
	}
	if err == nil && sent == 0 {
		err = errors.New("the filter made no copy")
	}
	return sent, err
}

// drain reads what got through.
func (b *burst) drain() error {
	n, err := b.receiver.drain()
	b.read += n
	return err
}

// readSoFar returns how many got through since it was called last.
func (b *burst) readSoFar() (read uint64, err error) {
	err = b.drain()
	read, b.read = b.read, 0
	return read, err
}

// copies is the filter of a burst. A copy passes it as well, and has a mark.
func copies(array *ebpf.Map, ifindex int) asm.Instructions {
	const (
		mark     = 8 // include/uapi/linux/bpf.h, struct __sk_buff
		tcActOK  = 0 // include/uapi/linux/pkt_cls.h
		stolen   = 4 // TC_ACT_STOLEN: freed, and no drop
		dropped  = 1 // include/linux/netdevice.h, NET_XMIT_DROP
		pass     = "pass"
		next     = "next"
		finished = "finished"
	)
	// R6 is the packet, R7 how many copies are still wanted, R8 how many there
	// are, R9 how many losses are still wanted.
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R0, asm.R6, mark, asm.Word),
		asm.JNE.Imm(asm.R0, 0, pass),
	}
	code = append(code, element(array, burstCopies, pass)...)
	code = append(code, asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord))
	code = append(code, element(array, burstLosses, pass)...)
	code = append(code,
		asm.LoadMem(asm.R9, asm.R0, 0, asm.DWord),
		asm.Mov.Imm(asm.R0, 1),
		asm.StoreMem(asm.R6, mark, asm.R0, asm.Word),
		asm.Mov.Imm(asm.R8, 0),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol(next),
		asm.Mov.Imm(asm.R2, int32(ifindex)),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnCloneRedirect.Call(),
		asm.Add.Imm(asm.R8, 1),
		asm.Sub.Imm(asm.R7, 1),
		asm.And.Imm(asm.R0, dropped),
		asm.Sub.Reg(asm.R9, asm.R0),
		// Only one branch a round that the verifier has to follow both ways.
		asm.Mov.Reg(asm.R0, asm.R7),
		asm.Mul.Reg(asm.R0, asm.R9),
		asm.JEq.Imm(asm.R0, 0, finished),
		asm.JLT.Imm(asm.R8, maxBurst, next),
	)
	done := element(array, burstSent, pass)
	done[0] = done[0].WithSymbol(finished)
	code = append(code, done...)
	return append(code,
		asm.StoreMem(asm.R0, 0, asm.R8, asm.DWord),
		asm.Mov.Imm(asm.R0, stolen),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcActOK).WithSymbol(pass),
		asm.Return(),
	)
}

// element has R0 point to an element of an array, or goes to missing.
func element(array *ebpf.Map, index int64, missing string) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, index, asm.Word),
		asm.LoadMapPtr(asm.R1, array.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, missing),
	}
}

// overflow makes bursts the generator of the rig: of n packets more than room,
// what the queue holds, and at most of most more. To prove the cure a burst of
// that length is sent again.
func (b *burst) overflow(r *rig, room, most uint64) {
	r.burst = func(ctx context.Context, n uint64) (sent uint64, err error) {
		for lost := uint64(0); lost < n && err == nil; {
			if err := ctx.Err(); err != nil {
				return sent, err
			}
			some := min(most, n-lost)
			var more uint64
			more, err = b.once(r, room+some, some)
			lost, sent = lost+some, sent+more
		}
		return sent, err
	}
	r.disarm = b.readSoFar
	r.prove = func(_ context.Context, n uint64) (lost uint64, err error) {
		before, err := r.lost()
		if err != nil {
			return 0, err
		}
		_, err = b.once(r, room+min(most, n), maxBurst)
		after, lerr := r.lost()
		return after - before, errors.Join(err, lerr)
	}
}

// once sends one burst when no packet waits for any CPU, and reads what got
// through.
func (b *burst) once(r *rig, packets, losses uint64) (sent uint64, err error) {
	err = r.from.Do(func() error {
		if err := b.stay(); err != nil {
			return err
		}
		if err := awaitIdle(r.patience); err != nil {
			return err
		}
		sent, err = b.send(packets, losses)
		return err
	})
	if err = errors.Join(err, awaitIdle(r.patience), r.settle(), b.drain()); err != nil {
		return sent, fmt.Errorf("send a burst: %w", err)
	}
	return sent, nil
}

// stay keeps the thread, which ends with what it does, on the CPU of the bursts.
func (b *burst) stay() error {
	if b.cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(b.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("send from CPU %d: %w", b.cpu, err)
	}
	return nil
}

// awaitIdle returns when no packet waits in the queue of any CPU.
func awaitIdle(patience time.Duration) error {
	const file = "/proc/thread-self/net/softnet_stat"
	const pause = 100 * time.Microsecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read queues of the CPUs: %w", err)
		}
		waiting, err := parseBacklog(text)
		if err != nil || waiting == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d packets still wait for their CPU after %s", waiting, patience)
		}
	}
}

// parseBacklog sums column 12 of /proc/net/softnet_stat, the packets in the
// queues of all CPUs (net/core/net-procfs.c, softnet_seq_show; since 5.10).
func parseBacklog(text []byte) (waiting uint64, err error) {
	const column = 11
	for line := range bytes.Lines(text) {
		columns := bytes.Fields(line)
		if len(columns) <= column {
			return 0, fmt.Errorf("column %d of softnet_stat: %w", column+1, errNoCounter)
		}
		n, err := strconv.ParseUint(string(columns[column]), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("column %d of softnet_stat: %w", column+1, err)
		}
		waiting += n
	}
	return waiting, nil
}
