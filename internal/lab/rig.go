package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

const (
	// batch bounds the packets that are under way at once. It is far below
	// net.core.netdev_max_backlog (1000) and the sender's buffer, so nothing
	// is lost on the way to where the loss is wanted.
	batch uint64 = 64
	// defaultPatience is how long the kernel may take over one batch. A very
	// busy host was seen to take 5 s.
	defaultPatience = 20 * time.Second
	// payload is the length of a generated datagram in bytes.
	payload = 64

	srcPort = 40000
	dstPort = 7777
)

// rig is the part of a scenario that provokes the loss and measures it.
type rig struct {
	host     *netlab.Namespace
	conn     *net.UDPConn // the generator's socket, bound to src
	src, dst netip.AddrPort
	patience time.Duration // with one batch

	// lost is the kernel's counter of this loss, with how evidence shows it.
	lost                  counter
	name, source, command string

	// arm and disarm are nil where every packet is lost anyway. arm sends
	// what the loss needs first; disarm clears up after it. They return how
	// many packets were sent, and read by the receiver.
	arm    func(context.Context) (sent uint64, err error)
	disarm func() (read uint64, err error)
}

// counter reads a number of the kernel that only grows.
type counter func() (uint64, error)

// newRig opens the generator's socket, on src of the peer.
func newRig(t *topology, src netip.Addr) (*rig, error) {
	r := &rig{
		host:     t.host,
		src:      netip.AddrPortFrom(src, srcPort),
		dst:      netip.AddrPortFrom(hostNet.Addr(), dstPort),
		patience: defaultPatience,
	}
	err := t.peer.Do(func() error {
		var err error
		r.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(r.src))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open generator's socket: %w", err)
	}
	t.onClose(r.conn.Close)
	return r, nil
}

// countIn makes a value of /proc/net/FILE the counter of the loss; nstat is
// its name in nstat(8).
func (r *rig) countIn(t *topology, file, table, field, nstat string) error {
	f, err := t.host.Open(file)
	if err != nil {
		return fmt.Errorf("open counters: %w", err)
	}
	t.onClose(f.Close)
	r.lost = tableCounter(f, table, field)
	r.name = table + "." + field
	r.source = "/proc/net/" + file
	r.command = "nstat -az " + nstat
	return nil
}

// provoke loses n packets. What was sent is accounted for also when it ends
// early.
func (r *rig) provoke(ctx context.Context, n uint64) (Truth, error) {
	var truth Truth
	before, err := r.lost()
	if err != nil {
		return truth, err
	}
	truth.Sent, err = r.run(ctx, n)
	if r.disarm != nil {
		var derr error
		truth.Delivered, derr = r.disarm()
		err = errors.Join(err, derr)
	}
	after, lerr := r.lost()
	if lerr != nil {
		return truth, errors.Join(err, lerr)
	}
	truth.Drops = after - before
	truth.Evidence = r.evidence(truth, before, after)
	if truth.Sent != truth.Delivered+truth.Drops || err == nil && truth.Drops != n {
		err = errors.Join(err, fmt.Errorf(
			"generator sent %d and the receiver read %d, but %s of the kernel counts %d lost",
			truth.Sent, truth.Delivered, r.name, truth.Drops))
	}
	return truth, err
}

// run sends everything and waits until the kernel is done with it.
func (r *rig) run(ctx context.Context, n uint64) (sent uint64, err error) {
	if r.arm != nil {
		if sent, err = r.arm(ctx); err != nil {
			return sent, err
		}
	}
	more, err := r.send(ctx, n, payload, r.lost)
	return sent + more, errors.Join(err, r.settle())
}

// send sends n datagrams of size bytes. After each batch it waits until
// handled has grown by the number sent so far. It returns that number.
func (r *rig) send(ctx context.Context, n uint64, size int, handled counter) (sent uint64, err error) {
	before, err := handled()
	if err != nil {
		return 0, err
	}
	data := make([]byte, size)
	for sent < n {
		if err := ctx.Err(); err != nil {
			return sent, err
		}
		if err := r.conn.SetWriteDeadline(time.Now().Add(r.patience)); err != nil {
			return sent, fmt.Errorf("set deadline of the generator: %w", err)
		}
		for range min(batch, n-sent) {
			if _, err := r.conn.WriteToUDPAddrPort(data, r.dst); err != nil {
				return sent, fmt.Errorf("send datagram to %s: %w", r.dst, err)
			}
			sent++
		}
		if err := await(handled, before+sent, r.patience); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// await returns when c has reached want. It does not listen to a context, so
// that no packet is left under way.
func await(c counter, want uint64, patience time.Duration) error {
	const pause = 100 * time.Microsecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		now, err := c()
		if err != nil || now >= want {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("the kernel did not handle %d packets within %s", want-now, patience)
		}
	}
}

// settle returns when every packet that was being received has left the
// receive path. The kernel counts a loss just before it frees the packet, so
// when the counter is right the last kfree_skb may still be to come.
//
// The receive path runs within rcu_read_lock (net/core/dev.c,
// process_backlog), and closing a packet socket waits for all of those
// (net/packet/af_packet.c, packet_release calls synchronize_net): both true
// from before 4.18 to 7.2.
func (r *rig) settle() error {
	return r.host.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		return unix.Close(fd)
	})
}

func (r *rig) evidence(t Truth, before, after uint64) []record.Evidence {
	u := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return []record.Evidence{
		{
			Kind: "fact", Name: "packets sent by the generator", Value: u(t.Sent),
			Source: "lab", Supports: true,
		},
		{
			Kind: "fact", Name: "packets read by the receiver", Value: u(t.Delivered),
			Source: "lab", Supports: true,
		},
		{
			Kind: "counter", Name: r.name, Value: u(t.Drops), Before: u(before), After: u(after),
			Source: r.source, Command: r.command, Supports: true,
		},
	}
}
