package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ctInsertFailed opens two connections at a time, from two addresses and the
// same port, and has NAT give both the host's address: where they meet both get
// the same port, and only one can have it.
func ctInsertFailed() Scenario {
	return Scenario{
		Name:  "ct-insert-failed",
		Title: "packets of new connections that NAT gave the same address and port in the same moment",
		build: buildInsertFailed,
	}
}

func buildInsertFailed(t *topology) (*rig, error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("let two connections meet: it needs two processors")
	}
	if err := t.addFar(); err != nil {
		return nil, err
	}
	read, err := t.sink(t.far, dstPort)
	if err != nil {
		return nil, err
	}
	if err := t.snat(0, 0); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.countConntrack(t, "insert_failed"); err != nil {
		return nil, err
	}
	p, err := t.newPair(r.lost, read)
	if err != nil {
		return nil, err
	}
	r.emit = p.meet
	r.prove = p.prove
	return r, nil
}

// pair is two processors that each send a packet in the same moment.
type pair struct {
	lost, read counter
	sends      [2]chan uint16 // ports to send from
	done       chan error
	arrived    atomic.Uint64 // how often a processor came to the point where it waits for the other
	round      uint64
	// sent is how many packets were sent, and firstLost what was lost before.
	sent, firstLost uint64
}

// rounds bounds how often two packets are sent until they meet: of 20,000
// rounds with two programs 12,391 did.
const rounds = 20000

func (t *topology) newPair(lost, read counter) (*pair, error) {
	p := &pair{lost: lost, read: read, done: make(chan error)}
	for cpu := range p.sends {
		p.sends[cpu] = make(chan uint16)
		send, err := t.frames()
		if err != nil {
			return nil, err
		}
		src := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + cpu)})
		frame, err := newPacket(flow(protoUDP, src, farNet.Addr())).bytes()
		if err != nil {
			return nil, err
		}
		go p.work(cpu, frame, send)
	}
	t.onClose(func() error {
		for _, c := range p.sends {
			close(c)
		}
		return nil
	})
	var err error
	if p.firstLost, err = lost(); err != nil {
		return nil, err
	}
	return p, nil
}

// work sends a packet for each port that it is told, from a processor of its
// own, when the other is ready too.
func (p *pair) work(cpu int, frame []byte, send func([]byte) error) {
	// The thread ends with this function, for it is not unlocked.
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	pinned := unix.SchedSetaffinity(0, &set)
	const port, checksum = etherLen + ipv4Len, etherLen + ipv4Len + 6
	binary.BigEndian.PutUint16(frame[checksum:], 0) // none
	var round uint64
	for from := range p.sends[cpu] {
		binary.BigEndian.PutUint16(frame[port:], from)
		round += 2
		p.arrived.Add(1)
		for p.arrived.Load() < round { //nolint:revive // it must not sleep: the two are to meet
		}
		p.done <- errors.Join(pinned, send(frame))
	}
}

// both sends a packet from either processor.
func (p *pair) both() error {
	const ports = 1 << 15
	p.round++
	for _, c := range p.sends {
		c <- uint16(1024 + p.round%ports)
	}
	p.sent += 2
	if err := errors.Join(<-p.done, <-p.done); err != nil {
		return fmt.Errorf("send two packets at a time: %w", err)
	}
	return nil
}

// meet sends two packets at a time until one of two is lost.
func (p *pair) meet() error {
	before, err := p.lost()
	if err != nil {
		return err
	}
	for range rounds {
		if err := errors.Join(p.both(), p.settled()); err != nil {
			return err
		}
		now, err := p.lost()
		if err != nil || now > before {
			return err
		}
	}
	return fmt.Errorf("let two packets meet: they did not in %d rounds", rounds)
}

// settled waits until all that was sent was lost or read.
func (p *pair) settled() error {
	return await(func() (uint64, error) {
		lost, err := p.lost()
		read, rerr := p.read()
		return lost - p.firstLost + read, errors.Join(err, rerr)
	}, p.sent, defaultPatience)
}

// prove sends as many rounds as there were until now, and at least n.
func (p *pair) prove(ctx context.Context, n uint64) (lost uint64, err error) {
	before, err := p.lost()
	if err != nil {
		return 0, err
	}
	for range max(n, p.round) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := p.both(); err != nil {
			return 0, err
		}
	}
	if err := p.settled(); err != nil {
		return 0, err
	}
	after, err := p.lost()
	if err != nil {
		return 0, err
	}
	return after - before, nil
}
