package lab

import (
	"context"
	"errors"
	"fmt"
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
	// held bounds the packets that the kernel holds to lose them later.
	held uint64 = 1024
	// defaultPatience is how long the kernel may take over one batch. A very
	// busy host was seen to take 5 s.
	defaultPatience = 20 * time.Second
)

// rig is the part of a scenario that provokes the loss and measures it.
type rig struct {
	host *netlab.Namespace
	from *netlab.Namespace // where the generator is
	flow record.Flow
	// device is that of Setup.Device.
	device string
	// emit sends one packet that will be lost. It is called on a thread in the
	// namespace from.
	emit     func() error
	patience time.Duration // with one batch
	// burst, where it is set, sends in place of emit: so many that will be lost,
	// together with others that are not, and returns how many all are.
	burst func(ctx context.Context, lost uint64) (sent uint64, err error)
	// taken counts the packets that the kernel has taken to lose them later.
	// It is nil where it loses them at once.
	taken counter
	// calm settles after each batch too, where the end of one and the start of
	// the next may not meet.
	calm bool

	// lost is the kernel's counter of this loss, with how evidence shows it.
	lost                  counter
	name, source, command string

	// arm and disarm are nil where every packet is lost anyway. arm sends
	// what the loss needs first; disarm clears up after it. They return how
	// many packets were sent, and read by the receiver.
	arm    func(context.Context) (sent uint64, err error)
	disarm func() (read uint64, err error)

	// repair does what the remedy tells a person to do where no command cures
	// the loss: it starts the listener, stops the wrong sender. nil where the
	// expectation does not say remedy: repair. It is called once.
	repair func() error
	// prove sends n packets again after the cure and counts those that the
	// kernel still loses. nil: emit and lost as they are (rig.proveEmit).
	prove func(ctx context.Context, n uint64) (lost uint64, err error)
}

// errNotLost is what a generator returns that found a packet not lost: what is
// wrong while a loss is provoked, and right after its cure.
var errNotLost = errors.New("the packet was not lost")

// proveEmit is the default of rig.prove: it calls emit n times, settles, and
// returns by how much the kernel's counter of the loss has grown. It does not
// wait for that counter after each batch, as it should not grow.
func (r *rig) proveEmit(ctx context.Context, n uint64) (lost uint64, err error) {
	before, err := r.lost()
	if err != nil {
		return 0, err
	}
	for sent := uint64(0); sent < n; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		err := r.from.Do(func() error {
			for range min(batch, n-sent) {
				if err := r.emit(); err != nil && !errors.Is(err, errNotLost) {
					return err
				}
				sent++
			}
			return nil
		})
		if err = errors.Join(err, r.settle()); err != nil {
			return 0, err
		}
	}
	after, err := r.lost()
	return after - before, err
}

// counter reads a number of the kernel that only grows.
type counter func() (uint64, error)

// newRig is a rig with neither a generator nor a counter.
func newRig(t *topology) *rig {
	return &rig{host: t.host, from: t.peer, device: hostDevice, patience: defaultPatience}
}

// count makes c the counter of the loss. Evidence shows it by that name, says
// that it was read from source, and that command shows it.
func (r *rig) count(c counter, name, source, command string) {
	r.lost, r.name, r.source, r.command = c, name, source, command
}

// countIn makes a value of /proc/net/FILE the counter of the loss; nstat is
// its name in nstat(8).
func (r *rig) countIn(t *topology, file, table, field, nstat string) error {
	c, err := t.table(file, table, field)
	if err != nil {
		return err
	}
	r.count(c, table+"."+field, "/proc/net/"+file, "nstat -az "+nstat)
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
	more, err := r.lose(ctx, n)
	return sent + more, errors.Join(err, r.settle())
}

// lose sends n packets and returns when all that were sent are lost.
func (r *rig) lose(ctx context.Context, n uint64) (sent uint64, err error) {
	if r.burst != nil {
		return r.burst(ctx, n)
	}
	if r.taken == nil {
		return r.send(ctx, n, r.emit, r.lost)
	}
	for sent < n {
		before, err := r.lost()
		if err != nil {
			return sent, err
		}
		some, err := r.send(ctx, min(held, n-sent), r.emit, r.taken)
		sent += some
		if err = errors.Join(err, await(r.lost, before+some, r.patience)); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// send calls emit n times. After each batch it waits until handled has grown by
// the number sent so far. It returns that number.
func (r *rig) send(ctx context.Context, n uint64, emit func() error, handled counter) (sent uint64, err error) {
	before, err := handled()
	if err != nil {
		return 0, err
	}
	for sent < n {
		if err := ctx.Err(); err != nil {
			return sent, err
		}
		err := r.from.Do(func() error {
			for range min(batch, n-sent) {
				if err := emit(); err != nil {
					return err
				}
				sent++
			}
			return nil
		})
		if err != nil {
			return sent, err
		}
		if err := await(handled, before+sent, r.patience); err != nil {
			return sent, err
		}
		if !r.calm {
			continue
		}
		if err := r.settle(); err != nil {
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

// damaged sends packets of which one bit was changed on their way: in byte at,
// or that many bytes before the end. The kernel counts them by their checksum
// in TABLE.InCsumErrors of /proc/net/FILE.
func damaged(t *topology, proto uint8, at int, bit byte, file, table string) (*rig, error) {
	r := newRig(t)
	r.flow = flow(proto, peerNet.Addr(), hostNet.Addr())
	frame, err := newPacket(r.flow).bytes()
	if err != nil {
		return nil, err
	}
	if at < 0 {
		at += len(frame)
	}
	frame[at] ^= bit
	if err := r.sendFrame(t, frame); err != nil {
		return nil, err
	}
	r.repair = r.receiveAndSend(t, t.host, newPacket(r.flow))
	return r, r.countIn(t, file, table, "InCsumErrors", table+"InCsumErrors")
}
