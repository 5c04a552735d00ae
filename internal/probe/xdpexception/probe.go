// Package xdpexception counts the packets that XDP programs lose without wanting
// to: the program fails itself (XDP_ABORTED), returns an action that does not
// exist, or sends a packet elsewhere and that does not work. Its C is in
// xdpexception.bpf.c beside this file.
//
// It deals in the kernel's numbers. It must not turn them into names (that is
// internal/kernel's), decide what they mean (internal/diagnose) or know of any
// other probe.
package xdpexception

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// Options says how to watch.
type Options struct {
	// Actions is how many actions the kernel has, from 0 on
	// (kernel.BTF.XDPActions). Required.
	Actions int
	// BTF amortises reading the kernel's types. Optional.
	BTF *btf.Cache
}

// Key is what packets are counted by.
type Key struct {
	// NetNS is the inode of the device's network namespace, Ifindex its number there.
	NetNS, Ifindex uint32
	// Prog is the id of the program.
	Prog uint32
	// Action is what the program returned; Options.Actions stands for all that
	// the kernel does not have. Without meaning where Errno is not 0.
	Action uint32
	// Errno is why a redirect failed, positive; 0 for what is none.
	Errno uint32
}

// Count is how many packets were lost since Open.
type Count struct {
	Key
	// Device is the name that the device had when the first of them was lost.
	Device  string
	Packets uint64
}

// Probe watches from Open until Detach. Its methods must not be called at the
// same time.
type Probe struct {
	coll  *ebpf.Collection
	links []link.Link
}

// Open loads the programs and attaches them. Errors wrap those of cilium/ebpf.
func Open(o Options) (_ *Probe, err error) {
	if o.Actions < 1 {
		return nil, fmt.Errorf("watch xdp:xdp_exception: %d actions", o.Actions)
	}
	// Before 5.11 maps count against RLIMIT_MEMLOCK.
	_ = rlimit.RemoveMemlock()
	spec, err := loadXdpexception()
	if err != nil {
		return nil, fmt.Errorf("read eBPF object: %w", err)
	}
	if err := spec.Variables[xdpexceptionVarActions].Set(uint32(o.Actions)); err != nil {
		return nil, fmt.Errorf("set %s of the eBPF program: %w", xdpexceptionVarActions, err)
	}
	p := &Probe{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	p.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: o.BTF})
	if err != nil {
		return nil, fmt.Errorf("load eBPF programs for XDP: %w", err)
	}
	for _, t := range []struct{ tracepoint, prog string }{
		{"xdp_exception", xdpexceptionProgXdpExceptionRaw},
		{"xdp_redirect_err", xdpexceptionProgXdpRedirectErrRaw},
	} {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: t.tracepoint, Program: p.coll.Programs[t.prog]})
		if err != nil {
			return nil, fmt.Errorf("attach to tracepoint xdp:%s: %w", t.tracepoint, err)
		}
		p.links = append(p.links, l)
	}
	return p, nil
}

// Counts calls f for all that was counted since Open.
func (p *Probe) Counts(f func(Count)) error {
	var k xdpexceptionFailureKey
	var v xdpexceptionFailure
	entries := p.coll.Maps[xdpexceptionMapFailures].Iterate()
	for entries.Next(&k, &v) {
		f(count(&k, &v))
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read table of the eBPF program for XDP: %w", err)
	}
	return nil
}

// count makes a Count of an entry of the table.
func count(k *xdpexceptionFailureKey, v *xdpexceptionFailure) Count {
	name := make([]byte, len(v.Device))
	for i, c := range v.Device {
		name[i] = byte(c)
	}
	name, _, _ = bytes.Cut(name, []byte{0})
	c := Count{Key: Key{NetNS: k.Netns, Ifindex: k.Ifindex, Prog: k.Prog}, Device: string(name), Packets: v.Packets}
	if k.Code < 0 {
		c.Errno = uint32(-k.Code)
	} else {
		c.Action = uint32(k.Code)
	}
	return c
}

// Missed is how many events have no Count: the table was full, or the program
// already ran on that CPU.
func (p *Probe) Missed() (uint64, error) {
	var n uint64
	if err := p.coll.Variables[xdpexceptionVarTableFull].Get(&n); err != nil {
		return 0, fmt.Errorf("read state of the eBPF program for XDP: %w", err)
	}
	for _, prog := range p.coll.Programs {
		s, err := prog.Stats()
		if err != nil {
			return 0, fmt.Errorf("read statistics of the eBPF program for XDP: %w", err)
		}
		n += s.RecursionMisses
	}
	return n, nil
}

// Detach stops the watching; Counts and Missed then give what was counted. It may
// be called more than once.
func (p *Probe) Detach() error {
	var err error
	for _, l := range p.links {
		err = errors.Join(err, l.Close())
	}
	p.links = nil
	if err != nil {
		return fmt.Errorf("detach from tracepoints of XDP: %w", err)
	}
	return nil
}

// Close detaches and frees everything. It may be called more than once.
func (p *Probe) Close() error {
	err := p.Detach()
	if p.coll != nil {
		p.coll.Close()
	}
	return err
}
