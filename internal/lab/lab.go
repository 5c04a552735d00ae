// Package lab reproduces packet losses in throw-away network namespaces, each
// with a ground truth of its own: what the generator sent and what the kernel's
// counters say. `whydrop lab` and the tests use the same scenarios.
//
// What whydrop should say about a scenario is written down apart from it, in
// expected/NAME.yaml, so that neither is bent to fit the other.
//
// To add a scenario, write a file of its own with a function that returns a
// Scenario, name it in List, and write expected/NAME.yaml. Its build function
// gets a topology, adds to it what the loss needs (addresses, routes, rules,
// with t.addFar a network behind the host), and returns a rig:
//
//   - r := newRig(t) is an empty one. Give it a generator: r.sendUDP (a UDP
//     socket), r.sendFrame (a frame through a packet socket of the peer; build
//     it with newPacket or serialize), r.connectTCP, or a function r.emit of
//     your own that causes one loss each time it is called.
//   - Give it a ground truth: r.countIn for a value of /proc/net/snmp or
//     netstat, or r.count for any other number that grows by one with each
//     loss: difference of two counters (t.received counts what comes to the
//     device), r.countQdisc, r.countRule, t.txDropped. It must count just
//     before the packet is freed, on the receive path or in the sender's call,
//     for then Provoke knows when it is over (rig.settle).
//     Where the kernel holds a packet for a while before it loses it, r.taken
//     counts what it took; where the end of one batch and the start of the
//     next may not meet, r.calm keeps them apart.
//   - r.arm and r.disarm are for what has to be sent before, such as what
//     fills a queue, and read after.
//   - What must be removed goes to t.onClose. Devices, routes, rules, qdiscs
//     and attached programs go away with their namespace.
//   - A loss for which the kernel raises no event has Silent set, and says
//     events: none in its expectation.
//   - After the loss comes its cure. Where the expectation says remedy:
//     command, the first complete command of the finding is run by a shell as
//     it is printed, and then n packets are sent again. Where it says remedy:
//     repair, r.repair does by Go what the remedy asks a person for: it makes a
//     listener, takes another way to build the frame (r.emit may be replaced).
//     Where it says none, remedy_why says why. Either way r.prove sends again
//     and returns how many are still lost; without one emit is called as
//     before and the difference of r.lost is taken. So emit must not fail on a
//     packet that arrives: one that expects a refusal returns errNotLost, and
//     whoever receives must read (t.sink).
//   - steps in the expectation tell how the loss comes about, a sentence each.
//     least is how many packets it takes to tell the cause from what looks
//     like it. machine_only says why it may only run in a machine that is thrown away:
//     it changes what the whole host has, or needs what is not here.
//
// A send that the kernel refuses is a loss too: failing wraps such a generator.
//
// Look at the scenario with bpftrace, its own namespace only, before writing
// the expectation: nothing else may be dropped in the host's namespace, and
// what is dropped elsewhere is not looked at. Things that disturb are ARP (use
// permanent neighbours), IPv6 (is off), and packets merged or cut up on their
// way (netlink.LinkSetGSOMaxSegs with 1 keeps TCP from it).
//
// The package must not touch the namespace it was started in, send a packet to
// any real network, leave anything behind, or know how drops are observed.
package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/whydrop/whydrop/internal/lab/cure"
	"github.com/whydrop/whydrop/record"
)

// Scenario is a loss that the lab can reproduce.
type Scenario struct {
	// Name is the id of the cause that the scenario reproduces; where one has
	// several scenarios, with a word more behind it.
	Name string
	// Title says in a sentence what is lost and why.
	Title string
	// Silent says that the kernel raises no drop event for this loss: what
	// Provoke reports in Truth.Drops can only be seen in counters, and the
	// number of events to expect is 0.
	Silent bool

	build func(*topology) (*rig, error)
}

// List returns every scenario, in the order of the packet's way (that of
// record.Stations).
func List() []Scenario {
	return []Scenario{
		xdpDrop(), xdpAborted(), xdpAbortedOwn(),
		cpuBacklog(), cpuBacklogSqueezed(), rpsFlowLimit(), macvlanBacklog(),
		tcIngressDrop(), tcMirredDown(), ifbShaping(),
		bridgeSTPState(), bridgeBadSrcMAC(), bridgeIsolated(), bridgePortMTU(), bridgeVLANFilter(),
		nfNetdevIngress(), nfRuleDrop(), bridgeNfCall(), nfRateLimit(), ctInvalid(), ctTableFull(), ctInsertFailed(), natPortExhaustion(), nfqueueNoListener(), pmtuBlackhole(), nfqueueFull(),
		ipMartianSource(), ipMartianDest(), ipRPFilter(), ipNotLocal(),
		ipFwdNoRoute(), ipFwdBlackhole(), ipTTL(), ipMTUDF(), ipSourceRoute(),
		l2OtherHost(), l2UnicastInMulticast(), vlanUnconfigured(), ipHeader(), fragTimeout(), fragMemory(), ipUnknownProto(), xfrmInPolicy(), xfrmInClear(),
		ipv6Disabled(), ipv6ExtHdr(), ipv6NDiscInvalid(), fragOverlap(), mcastNotMember(), arpFlux(),
		tunnelNoReceiver(),
		udpCsum(), udpNoPort(), mcastNoSocket(), tcpCsum(), tcpNoListener(), tcpAuth(), tcpMinTTL(), tcpBeyondWindow(), tcpPAWS(), tcpChallenge(), tcpTimeWaitOverflow(), icmpBad(), icmpEchoIgnored(), udpReplySource(),
		udpRcvBuf(), udpMem(), udpSockFilter(), lsmHook(), tcpAcceptQueue(), tcpSynQueue(), tcpRcvBufPrune(), tcpZeroWindow(), tcpMem(), tcpFastOpen(),
		udpSndBufAgain(), udpSndBufNoBufs(), icmpRateLimit(), udpMsgSize(),
		tcpOrphans(), outNoRoute(), outSpecialRoute(),
		cgroupBPF(),
		nfOutputDrop(), nfNetdevEgress(),
		neighFailed(), neighQueueFull(), neighTableOverflow(),
		tcEgressDrop(), qdiscFIFOLimit(), qdiscFQFlowLimit(), qdiscFQOther(), qdiscShaper(), qdiscAQM(), qdiscNetem(), tcpLocalQueue(),
		vethPeerMTU(), tunFullRing(), tunNoReader(), nicCarrier(),
		vxlanVNIMissing(), vxlanHeader(), tunnelECN(), vxlanNoFDB(), tunnelMTU(), xfrmOut(), xfrmOutBlock(),
		packetSocketFull(), netlinkOverrun(), unixDgram(),
	}
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
	// NetNS is the inode of the namespace in which the drops will happen: that
	// of the host, which receives, forwards or sends the packets.
	NetNS uint32
	// Device is the name of the device through which the packets come into
	// the host, or leave it where the host is the sender.
	Device string
	// Flow is the flow of every packet that will be lost, and not valid where
	// they have none in common.
	Flow record.Flow

	mu   sync.Mutex
	top  *topology // nil once closed
	rig  *rig
	held int // the process of Hold, or 0
	// received says that there is a receiver wherever there was none.
	received bool
}

// Prepare makes the namespaces, devices, sockets and rules of the scenario. It
// provokes no drop. It needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW. The
// kernel may load modules for it: veth, and what the scenario is about, such
// as nf_tables, sch_ingress, cls_bpf, sch_tbf, tun or bridge.
func (s Scenario) Prepare(ctx context.Context) (*Setup, error) {
	setups, err := PrepareTogether(ctx, s)
	if err != nil {
		return nil, err
	}
	return setups[0], nil
}

// PrepareTogether prepares several scenarios in one host, which then loses
// packets for several reasons. They must not get in each other's way: what one
// counts the others must not lose, and what one takes (a port, a device) the
// others must leave. Closing one of the setups closes all.
func PrepareTogether(ctx context.Context, scenarios ...Scenario) ([]*Setup, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("prepare scenarios: %w", err)
	}
	top, err := newTopology()
	if err != nil {
		return nil, fmt.Errorf("prepare scenarios: %w", err)
	}
	var setups []*Setup
	for _, s := range scenarios {
		rig, err := s.build(top)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("prepare %s: %w", s.Name, err), top.close())
		}
		setups = append(setups, newSetup(top, rig))
	}
	return setups, nil
}

func newSetup(top *topology, r *rig) *Setup {
	return &Setup{NetNS: top.host.Inode(), Device: r.device, Flow: r.flow, top: top, rig: r}
}

// Truth is what is known about a provoked loss without observing drops.
type Truth struct {
	// Sent is how many packets (for TCP: connections) the generator sent,
	// Delivered how many of them the receiving application read, and Drops
	// how many were lost according to the kernel's own counter.
	// Sent = Delivered + Drops.
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

// Hold starts a process that does nothing in the namespace NetNS, and returns
// its PID: /proc/PID/ns/net leads into the namespace for as long as the Setup
// is open, also for whydrop's own look at it. Close ends it, and so does the
// end of this program, whatever ends it. It may be called again.
func (s *Setup) Hold() (pid int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.top == nil:
		return 0, errors.New("hold namespace: the scenario is closed")
	case s.held != 0:
		return s.held, nil
	}
	h, err := cure.Hold(s.top.host.Do)
	if err != nil {
		return 0, err
	}
	s.top.onClose(h.Close)
	s.held = h.PID()
	return s.held, nil
}

// Repair does what the remedy asks a person to do, where no command cures the
// loss (RemedyRepair).
func (s *Setup) Repair() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.top == nil:
		return errors.New("repair: the scenario is closed")
	case s.rig.repair == nil:
		return errors.New("repair: the scenario has no repair of its own")
	}
	if err := s.rig.repair(); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	return nil
}

// Prove sends n packets again, after the cure, and returns how many of them
// the kernel still lost, by its own counter.
func (s *Setup) Prove(ctx context.Context, n int) (lost uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.top == nil:
		return 0, errors.New("prove the cure: the scenario is closed")
	case n < 1:
		return 0, fmt.Errorf("prove the cure with %d packets: at least 1 is needed", n)
	}
	prove := s.rig.prove
	if prove == nil {
		prove = s.rig.proveEmit
		if err := s.receive(); err != nil {
			return 0, fmt.Errorf("prove the cure: %w", err)
		}
	}
	if lost, err = prove(ctx, uint64(n)); err != nil {
		return lost, fmt.Errorf("prove the cure with %d packets: %w", n, err)
	}
	return lost, nil
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
