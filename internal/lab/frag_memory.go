package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// fragMemory sends fragments while all the memory that fragments may have is
// in use.
func fragMemory() Scenario {
	return Scenario{
		Name:  "frag-memory",
		Title: "fragments while those that wait for others fill ipfrag_high_thresh",
		build: buildFragMemory,
	}
}

// fragRoom is the memory that fragments may have, in bytes.
const fragRoom = 64 << 10

func buildFragMemory(t *topology) (*rig, error) {
	// What waits does so for an hour. A fragment is refused as soon as more than
	// the limit is in use (net/ipv4/inet_fragment.c, inet_frag_create).
	for _, setting := range [][2]string{{"low_thresh", "0"}, {"high_thresh", strconv.Itoa(fragRoom)}, {"time", "3600"}} {
		if err := t.host.Sysctl("net.ipv4.ipfrag_"+setting[0], setting[1]); err != nil {
			return nil, err
		}
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	p := firstFragment(r)
	if err := r.fillFragments(t, p); err != nil {
		return nil, fmt.Errorf("fill memory of fragments: %w", err)
	}
	p.ip.Id++ // those that get lost are of another datagram
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	received := sync.OnceValue(t.receive(t.host))
	r.prove = func(ctx context.Context, n uint64) (uint64, error) {
		if err := received(); err != nil {
			return 0, err
		}
		return r.proveWhole(ctx, t, p, n)
	}
	return r, r.countIn(t, "snmp", "Ip", "ReasmFails", "IpReasmFails")
}

// fillFragments sends first fragments, each of a datagram of its own, until they
// take more memory than they may have.
func (r *rig) fillFragments(t *topology, p *packet) error {
	const least = 64 // bytes that one takes, at least
	taken, err := t.table("snmp", "Ip", "ReasmReqds")
	if err != nil {
		return err
	}
	stat, err := t.host.Open("sockstat")
	if err != nil {
		return err
	}
	defer stat.Close()
	for n := uint64(1); n < fragRoom/least; n++ {
		p.ip.Id++
		if err := r.sendPacket(t, p); err != nil {
			return err
		}
		if err := r.from.Do(r.emit); err != nil {
			return err
		}
		if err := await(taken, n, r.patience); err != nil {
			return err
		}
		if used, err := fragMemoryUsed(stat); err != nil || used > fragRoom {
			return errors.Join(err, r.settle())
		}
	}
	return errors.New("they never take more than they may")
}

// fragMemoryUsed reads the line "FRAG: inuse N memory N" of an open
// /proc/net/sockstat (net/ipv4/proc.c, sockstat_seq_show).
func fragMemoryUsed(f io.ReaderAt) (used uint64, err error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<12))
	if err != nil {
		return 0, fmt.Errorf("read sockstat: %w", err)
	}
	_, line, _ := strings.Cut(string(text), "FRAG: ")
	var waiting uint64
	if _, err := fmt.Sscanf(line, "inuse %d memory %d", &waiting, &used); err != nil {
		return 0, fmt.Errorf("read sockstat: FRAG: %w", err)
	}
	return used, nil
}

// proveWhole sends datagrams in two fragments, as they should come, and counts
// those whose fragments were refused.
func (r *rig) proveWhole(ctx context.Context, t *topology, p *packet, n uint64) (uint64, error) {
	first, last := *p, *p
	last.ip.Flags, last.ip.FragOffset = 0, uint16((udpLen+payload)/8)
	last.transport = nil
	send, err := t.frames()
	if err != nil {
		return 0, err
	}
	r.emit = func() error {
		first.ip.Id++
		last.ip.Id = first.ip.Id
		for _, part := range []*packet{&first, &last} {
			frame, err := part.bytes()
			if err != nil {
				return err
			}
			if err := send(frame); err != nil {
				return err
			}
		}
		return nil
	}
	return r.proveEmit(ctx, n)
}
