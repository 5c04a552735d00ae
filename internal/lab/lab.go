// Package lab reproduces packet losses in throw-away network namespaces, each
// with a ground truth of its own: what the generator sent and what the kernel's
// counters say. `whydrop lab` and the tests use the same scenarios.
//
// What whydrop should say about a scenario is written down apart from it, in
// expected/NAME.yaml, so that neither is bent to fit the other.
//
// The package must not touch the namespace it was started in, send a packet to
// any real network, leave anything behind, or know how drops are observed.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// Scenario is a loss that the lab can reproduce.
type Scenario struct {
	// Name is the id of the cause that the scenario reproduces.
	Name string
	// Title says in a sentence what is lost and why.
	Title string

	build func(*topology) (*rig, error)
}

// List returns every scenario, in the order of the packet's way.
func List() []Scenario {
	return []Scenario{ipRPFilter(), nfRuleDrop(), udpNoPort(), udpRcvBuf()}
}

// Find returns the scenario with that name. The error names those there are.
func Find(name string) (Scenario, error) {
	var names []string
	for _, s := range List() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Scenario{}, fmt.Errorf("lab scenario %q: there is none; there are %s", name, strings.Join(names, ", "))
}

// Setup is a scenario that is ready to lose packets. Its methods may be called
// by several goroutines; one runs at a time.
type Setup struct {
	// NetNS is the inode of the namespace in which the drops will happen.
	NetNS uint32
	// Device is the name of the device on which the packets arrive there.
	Device string
	// Flow is the flow of every packet that will be lost.
	Flow record.Flow

	mu  sync.Mutex
	top *topology // nil once closed
	rig *rig
}

// Prepare makes the namespaces, devices, sockets and rules of the scenario. It
// provokes no drop. It needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW. The
// kernel may load the modules veth and nf_tables for it.
func (s Scenario) Prepare(ctx context.Context) (*Setup, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", s.Name, err)
	}
	top, err := newTopology()
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", s.Name, err)
	}
	rig, err := s.build(top)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", s.Name, err), top.close())
	}
	return &Setup{
		NetNS:  top.host.Inode(),
		Device: hostDevice,
		Flow:   record.Flow{Proto: protoUDP, Src: rig.src, Dst: rig.dst},
		top:    top,
		rig:    rig,
	}, nil
}

// Truth is what is known about a provoked loss without observing drops.
type Truth struct {
	// Sent is how many packets the generator sent, Delivered how many of them
	// the receiving application read, and Drops how many were lost according
	// to the kernel's own counter. Sent = Delivered + Drops.
	Sent      uint64
	Delivered uint64
	Drops     uint64
	// Evidence holds the numbers behind it and where they were read.
	Evidence []record.Evidence
}

// Provoke makes the kernel drop exactly n packets, and returns once every one
// of them was freed. Besides those it sends the few packets that the loss
// itself needs, such as those that fill a buffer: they are part of Truth.Sent
// and Truth.Delivered. If the generator and the kernel's counter disagree the
// error says both numbers. Provoke may be called again.
func (s *Setup) Provoke(ctx context.Context, n int) (Truth, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.top == nil {
		return Truth{}, errors.New("provoke drops: the scenario is closed")
	}
	if n < 1 {
		return Truth{}, fmt.Errorf("provoke %d drops: at least 1 is needed", n)
	}
	truth, err := s.rig.provoke(ctx, uint64(n))
	if err != nil {
		return truth, fmt.Errorf("provoke %d drops: %w", n, err)
	}
	return truth, nil
}

// Close removes everything that Prepare made. It may be called again.
func (s *Setup) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.top == nil {
		return nil
	}
	err := s.top.close()
	s.top = nil
	return err
}

// The network of every scenario: the peer sends to the host, and the host
// loses the packets. The addresses are those of RFC 5737 for documentation.
const (
	hostDevice = "lab0"
	peerDevice = "peer0"

	protoUDP = 17
)

var (
	hostNet = netip.MustParsePrefix("192.0.2.1/24")
	peerNet = netip.MustParsePrefix("192.0.2.2/24")
)

// topology is two namespaces joined by a veth pair, and what was opened in
// them.
type topology struct {
	host, peer *netlab.Namespace
	closers    []func() error // run in reverse order
}

func newTopology() (*topology, error) {
	t := new(topology)
	if err := t.build(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *topology) build() error {
	var err error
	if t.host, err = netlab.New(); err != nil {
		return err
	}
	t.onClose(t.host.Close)
	if t.peer, err = netlab.New(); err != nil {
		return err
	}
	t.onClose(t.peer.Close)
	// A new namespace may start with the settings of the host that it is made
	// on (net.core.devconf_inherit_init_net), so nothing is left to them.
	for _, name := range []string{"all", "default"} {
		if err := t.host.Sysctl("net.ipv4.conf."+name+".rp_filter", "0"); err != nil {
			return err
		}
	}
	return netlab.Veth(
		netlab.End{NS: t.host, Name: hostDevice, Addr: hostNet},
		netlab.End{NS: t.peer, Name: peerDevice, Addr: peerNet},
	)
}

// onClose adds a function that close will call.
func (t *topology) onClose(f func() error) { t.closers = append(t.closers, f) }

func (t *topology) close() error {
	var errs []error
	for i := len(t.closers) - 1; i >= 0; i-- {
		errs = append(errs, t.closers[i]())
	}
	t.closers = nil
	return errors.Join(errs...)
}
