package observe

import (
	"hash/maphash"
	"time"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

const (
	// maxAlertKeys bounds the kinds of drops that are counted apart between two
	// intervals: what they are told apart by comes from packets.
	maxAlertKeys = 1 << 14
	// maxAlertSamples bounds the samples between two polls.
	maxAlertSamples = maxSamples
)

// alertKey is what packet alerts are counted by, in the monitor's words.
type alertKey struct {
	origin    dropmon.Origin
	pc        uint64
	symbol    string
	reason    string
	group     string
	index     uint32
	device    string
	etherType uint16
	ipProto   uint8
}

// alertSum is how many there were.
type alertSum struct{ drops, bytes uint64 }

// alertSample is a packet whose whole record is kept.
type alertSample struct {
	key alertKey
	*dropmon.Packet
	// start says how its bytes begin; ok whether they could be read.
	start packet.Start
	ok    bool
}

// alertBook adds up what alerts tell. It is not locked.
type alertBook struct {
	points  map[uint64]uint64 // by PC
	packets map[alertKey]alertSum
	samples []alertSample
	// tokens are the samples that a kind of drop may still take; a kind that is
	// not in it has all of burst.
	tokens        map[alertKey]int
	burst, refill int
	twins         twins
	headers       packet.Headers

	// mapFull and empty are drops without a key, and alerts that told nothing;
	// full are summaries without room, traps the drops of hardware.
	mapFull, empty, full, traps, packetsSeen uint64
	alerts                                   uint64
	// reasons says whether any packet had one.
	reasons bool
}

func newAlertBook(rich bool) alertBook {
	b := alertBook{
		points: map[uint64]uint64{}, packets: map[alertKey]alertSum{}, tokens: map[alertKey]int{},
		burst: 8, refill: 1, twins: newTwins(),
	}
	if rich {
		b.burst, b.refill = 64, 50
	}
	return b
}

// take adds up an alert.
func (b *alertBook) take(a dropmon.Alert) {
	b.alerts++
	if len(a.Points)+len(a.Traps) == 0 && a.Packet == nil {
		b.empty++
		return
	}
	if len(a.Points) >= summaryPlaces {
		b.full++
	}
	for _, p := range a.Points {
		// Place 0 is no drop: a device counted some of its own, which are in its
		// counters (trace_napi_poll_hit, net/core/drop_monitor.c).
		if p.PC == 0 || p.Drops == 0 {
			continue
		}
		if _, ok := b.points[p.PC]; !ok && len(b.points) >= maxAlertKeys {
			b.mapFull += uint64(p.Drops)
			continue
		}
		b.points[p.PC] += uint64(p.Drops)
	}
	for _, t := range a.Traps {
		b.traps += uint64(t.Drops)
		b.add(alertKey{origin: dropmon.OriginHardware, reason: t.Name}, alertSum{drops: uint64(t.Drops)})
	}
	if a.Packet != nil {
		b.packet(a.Packet)
	}
}

// add counts drops, without their key where there is no room for it.
func (b *alertBook) add(k alertKey, n alertSum) {
	sum, ok := b.packets[k]
	if !ok && len(b.packets) >= maxAlertKeys {
		b.mapFull += n.drops
		return
	}
	sum.drops += n.drops
	sum.bytes += n.bytes
	b.packets[k] = sum
}

// packet counts a packet, and keeps it as a sample if its kind has tokens left.
func (b *alertBook) packet(p *dropmon.Packet) {
	b.packetsSeen++
	s := alertSample{Packet: p}
	s.start, s.ok = b.decode(p)
	s.key = alertKey{origin: p.Origin, pc: p.PC, reason: p.Reason, index: p.InIndex, etherType: p.Protocol}
	if p.Origin == dropmon.OriginHardware {
		b.traps++
		s.key.reason, s.key.group, s.key.device = p.TrapName, p.TrapGroup, p.InName
	} else {
		s.key.symbol = p.Symbol
		b.reasons = b.reasons || p.Reason != ""
	}
	if s.ok && b.headers.HasIP() {
		s.key.ipProto = b.headers.Proto
	}
	n := alertSum{1, uint64(p.OriginalLength)}
	if other, found := b.twins.meet(p, s.key); found {
		b.merge(other, s.key, n)
	} else {
		b.add(s.key, n)
	}
	if b.packets[s.key].drops > 0 {
		b.sample(s)
	}
}

// merge makes one drop of a packet that hardware and the kernel both told of. It
// is the kernel's: hardware only handed it over, and the kernel knows why it
// dropped it. What was handed on already stays as it is.
func (b *alertBook) merge(first, second alertKey, n alertSum) {
	if second.origin == dropmon.OriginHardware {
		return
	}
	sum := b.packets[first]
	if sum.drops == 0 {
		return
	}
	sum.drops--
	sum.bytes -= min(sum.bytes, n.bytes)
	b.packets[first] = sum
	b.add(second, n)
}

func (b *alertBook) sample(s alertSample) {
	left, ok := b.tokens[s.key]
	if !ok {
		left = b.burst
	}
	if left == 0 || len(b.samples) >= maxAlertSamples {
		return
	}
	b.tokens[s.key] = left - 1
	b.samples = append(b.samples, s)
}

// takeSamples returns the samples since the last time and grants new ones.
func (b *alertBook) takeSamples() []alertSample {
	out := b.samples
	b.samples = nil
	for k, left := range b.tokens {
		if left += b.refill; left >= b.burst {
			delete(b.tokens, k)
		} else {
			b.tokens[k] = left
		}
	}
	return out
}

// takeCounts returns the counts since the last time.
func (b *alertBook) takeCounts() (map[uint64]uint64, map[alertKey]alertSum) {
	points, packets := b.points, b.packets
	b.points, b.packets = make(map[uint64]uint64, len(points)), make(map[alertKey]alertSum, len(packets))
	return points, packets
}

// decode reads the headers of a packet, which begins where skb->mac_header
// points: at an Ethernet header, or on a device without link headers at that of
// the network. The message does not say which: the ethertype has to fit.
func (b *alertBook) decode(p *dropmon.Packet) (packet.Start, bool) {
	err := b.headers.Decode(p.Payload, packet.StartEthernet, 0)
	if err == nil && (b.headers.EtherType == p.Protocol || p.Protocol == 0) {
		return packet.StartEthernet, true
	}
	tagged := err == nil
	if err := b.headers.Decode(p.Payload, packet.StartNetwork, p.Protocol); err == nil && b.headers.HasIP() {
		return packet.StartNetwork, true
	}
	if !tagged {
		return packet.StartEthernet, false
	}
	// Another ethertype than the frame's own, as the kernel gives it to a frame
	// whose VLAN tag it keeps.
	return packet.StartEthernet, b.headers.Decode(p.Payload, packet.StartEthernet, 0) == nil
}

// twinTime is how far apart hardware and the kernel may tell of one packet.
const twinTime = time.Second

// maxTwins bounds the packets that are remembered for it.
const maxTwins = 1024

// twins finds packets that hardware told of because it handed them to the kernel
// (devlink traps of the type exception), and that the kernel dropped then: they
// are the same bytes, a moment apart.
type twins struct {
	seed   maphash.Seed
	recent []twin // a ring
	next   int
}

type twin struct {
	sum  uint64
	time time.Time
	key  alertKey
	live bool
}

func newTwins() twins { return twins{seed: maphash.MakeSeed()} }

// meet looks for the other of p and forgets it, or remembers p.
func (t *twins) meet(p *dropmon.Packet, key alertKey) (alertKey, bool) {
	if len(p.Payload) == 0 {
		return alertKey{}, false
	}
	sum := maphash.Bytes(t.seed, p.Payload)
	for i := range t.recent {
		o := &t.recent[i]
		if o.live && o.sum == sum && o.key.origin != p.Origin && o.time.Sub(p.Time).Abs() <= twinTime {
			o.live = false
			return o.key, true
		}
	}
	w := twin{sum, p.Time, key, true}
	if len(t.recent) < maxTwins {
		t.recent = append(t.recent, w)
	} else {
		t.recent[t.next] = w
		t.next = (t.next + 1) % maxTwins
	}
	return alertKey{}, false
}

// trapReason is the reason of a drop by hardware.
func trapReason(name, group string) record.Reason {
	return record.Reason{Name: name, Subsystem: record.SubsystemDevlink, Group: group}
}
