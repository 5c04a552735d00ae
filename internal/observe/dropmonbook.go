package observe

import (
	"bytes"
	"hash/maphash"
	"slices"
	"time"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
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
	// reasons says whether any packet had one, software whether the kernel
	// dropped any.
	reasons, software bool
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
		// A summary may be of nothing: a drop after the second is over, and before
		// what it held is sent, starts another (send_dm_alert, net/core/drop_monitor.c).
		if !a.Empty {
			b.empty++
		}
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
		b.software = true
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
	if len(p.Payload) > packetBytes { // another's monitor may be set to tell more
		p.Payload = slices.Clone(p.Payload[:packetBytes])
	}
	s := alertSample{Packet: p}
	s.start, s.ok = p.Headers(&b.headers)
	s.key = alertKey{origin: p.Origin, pc: p.PC, reason: p.Reason, index: p.InIndex, etherType: p.Protocol}
	if p.Origin == dropmon.OriginHardware {
		b.traps++
		s.key.reason, s.key.group, s.key.device = p.TrapName, p.TrapGroup, p.InName
	} else {
		b.software = true
		s.key.symbol = p.Symbol
		b.reasons = b.reasons || p.Reason != ""
	}
	if s.ok && b.headers.HasIP() {
		s.key.ipProto = b.headers.Proto
	}
	n := alertSum{1, uint64(p.OriginalLength)}
	if other, found := b.twins.meet(p, s.key); found && !b.replace(other, s, n) {
		return
	}
	b.add(s.key, n)
	if b.packets[s.key].drops > 0 {
		b.sample(s)
	}
}

// replace makes room for the second of two alerts of one packet, that of
// hardware and that of the kernel, by taking back the first. It is false where
// the drop is the first one's: hardware's, unless it only handed the packet over
// and the kernel knows why it dropped it, as it is by eBPF. What was handed on
// already stays as it is.
func (b *alertBook) replace(first alertKey, second alertSample, n alertSum) bool {
	hard := first
	if second.key.origin == dropmon.OriginHardware {
		hard = second.key
	}
	kernels := slices.Contains(exceptionTraps, hard.reason)
	sum := b.packets[first]
	if kernels == (second.key == hard) || sum.drops == 0 {
		return false
	}
	sum.drops--
	sum.bytes -= min(sum.bytes, n.bytes)
	b.packets[first] = sum
	if sum.drops == 0 {
		delete(b.packets, first)
	}
	if i := slices.IndexFunc(b.samples, func(s alertSample) bool {
		return s.key == first && bytes.Equal(s.Payload, second.Payload)
	}); i >= 0 {
		b.samples = slices.Delete(b.samples, i, i+1)
	}
	return true
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

// twinTime is how far apart the kernel may have told of one packet twice.
const twinTime = 25 * time.Millisecond

// maxTwins bounds the packets that are remembered for it.
const maxTwins = 1024

// twins finds packets that hardware told of and that the kernel dropped then,
// because hardware handed them over (devlink traps of the type exception), or
// because that is how the driver frees what it has reported (mlx5). They are the
// same bytes, a moment apart.
type twins struct {
	seed maphash.Seed
	// recent is a ring: packet n is at n%maxTwins; told is how many there were.
	recent []twin
	told   uint64
	// latest is the number of the last packet of each kind, plus 1.
	latest map[twinKind]uint64
}

// twinKind are packets of the same bytes, told by the same.
type twinKind struct {
	sum    uint64
	origin dropmon.Origin
}

type twin struct {
	kind twinKind
	time time.Time
	key  alertKey
	live bool
	// before is the number of the one before of this kind, plus 1.
	before uint64
}

func newTwins() twins {
	return twins{seed: maphash.MakeSeed(), recent: make([]twin, maxTwins), latest: make(map[twinKind]uint64, maxTwins)}
}

// meet looks for the other of p and forgets it, or remembers p. It costs the
// same however many are remembered, unless hardware tells of them.
func (t *twins) meet(p *dropmon.Packet, key alertKey) (alertKey, bool) {
	if len(p.Payload) == 0 {
		return alertKey{}, false
	}
	own := twinKind{maphash.Bytes(t.seed, p.Payload), p.Origin}
	other := twinKind{own.sum, dropmon.OriginSoftware}
	if p.Origin == dropmon.OriginSoftware {
		other.origin = dropmon.OriginHardware
	}
	for n := t.latest[other]; n > 0 && t.told-n < maxTwins; {
		o := &t.recent[(n-1)%maxTwins]
		if o.live && o.time.Sub(p.Time).Abs() <= twinTime {
			o.live = false
			return o.key, true
		}
		n = o.before
	}
	slot := &t.recent[t.told%maxTwins]
	if t.told >= maxTwins && t.latest[slot.kind] == t.told-maxTwins+1 {
		delete(t.latest, slot.kind)
	}
	*slot = twin{own, p.Time, key, true, t.latest[own]}
	t.told++
	t.latest[own] = t.told
	return alertKey{}, false
}
