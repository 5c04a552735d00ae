package diagnose

import (
	"strconv"

	"github.com/whydrop/whydrop/record"
)

// scope is what expressions about an instance can name. drops is how many drops it
// is taken to have. The next call for the same instance changes it.
func (m *matcher) scope(in *instance, drops uint64) *scope {
	if in.summary == nil {
		in.summary = m.summary(in)
	}
	s := in.summary
	s.begin(drops)
	if s.Seconds > 0 {
		s.Rate = float64(drops) / s.Seconds
	}
	for _, p := range in.portions {
		c := &m.counts[p.portion.count]
		s.Bytes += clamp(mulDiv(c.Bytes, p.drops, max(c.Drops, 1)))
	}
	return s
}

// begin leaves nothing in s of what it was used for before.
func (s *scope) begin(drops uint64) {
	s.dropped, s.values = drops, nil
	s.Drops, s.Bytes, s.Elsewhere, s.Rate = clamp(drops), 0, 0, 0
}

// probe is the scope of a cause at a place where no drop is known to be its own.
// The next call for the same place changes it.
func (m *matcher) probe(c *Cause, p place) *scope {
	s := m.scopeAt(p)
	s.define(c.Lets)
	s.begin(0)
	return s
}

// matching is the function that compares with the drops of s.
func (m *matcher) matching(s *scope) func(any) (bool, error) {
	return func(v any) (bool, error) {
		n, ok := toFloat(v)
		if !ok {
			return false, unknownf("matches_drops(%v): not a number", v)
		}
		return m.agrees(n, float64(s.dropped))
	}
}

// summary is the part of a scope that does not change while drops are given.
func (m *matcher) summary(in *instance) *scope {
	copied := *m.scopeAt(in.place)
	s := &copied
	s.define(in.cause.Lets)
	s.Matches = m.matching(s)
	s.Samples = len(in.samples)
	// A contributor without devices of its own has that of its finding.
	if in.cause.Per != perDevice && in.place.dev.Index == 0 {
		d := in.topDevice()
		s.Device, s.IfIndex = d.Name, int(d.Index)
	}
	in.summarise(s)
	if s.Inode != 0 {
		if found, err := m.b.answers("owner "+strconv.Itoa(s.Inode), in.place); err == nil && found[0].Value != none {
			s.Owner = found[0].Value
		}
	}
	return s
}

// scopeAt is the part of a scope that is the same for all instances at a place.
func (m *matcher) scopeAt(p place) *scope {
	if s := m.scopes[p]; s != nil {
		return s
	}
	o := m.b.o
	s := &scope{
		Seconds: o.Window.Duration.Seconds(), Kernel: o.Kernel.Release,
		NetNS: netnsLabel(p.ns), NS: m.b.enter(p.ns), Device: p.dev.Name, IfIndex: int(p.dev.Index),
		Watched: watchedDrops(o),
	}
	m.b.functions(s, p)
	s.Matches = m.matching(s)
	m.afterwards(s, p)
	m.scopes[p] = s
	return s
}

// topDevice is the device with most of the drops that can be the instance's.
func (in *instance) topDevice() record.Device {
	var best record.Device
	for d, n := range in.devices {
		if d.Index == 0 {
			continue
		}
		m := in.devices[best]
		if best.Index == 0 || n > m || n == m && (d.Index < best.Index || d.Index == best.Index && d.Name < best.Name) {
			best = d
		}
	}
	return best
}

// summarise reduces the samples to what expressions can name.
func (in *instance) summarise(s *scope) {
	if len(in.samples) == 0 {
		return
	}
	flows := map[record.Flow]int{}
	ports := map[uint16]int{}
	inodes := map[uint64]int{}
	var top record.Flow
	var inode uint64
	s.Span = span(in.samples)
	for _, d := range in.samples {
		s.Length, s.TrueSize = max(s.Length, int(d.Length)), max(s.TrueSize, int(d.TrueSize))
		if d.Socket != nil && d.Socket.Inode != 0 {
			inodes[d.Socket.Inode]++
			n, most := inodes[d.Socket.Inode], inodes[inode]
			if n > most || n == most && d.Socket.Inode < inode {
				inode = d.Socket.Inode
			}
		}
		if d.Packet == nil {
			continue
		}
		if tooBig(d.Packet) {
			s.TooBig++
		}
		if mac := d.Packet.DstMAC; mac != "" && (s.DstMAC == "" || mac < s.DstMAC) {
			s.DstMAC = mac
		}
		f := d.Packet.Flow
		if !f.IsValid() {
			continue
		}
		flows[f]++
		ports[f.Dst.Port()]++
		s.TopPortSamples = max(s.TopPortSamples, ports[f.Dst.Port()])
		if n, most := flows[f], flows[top]; n > most || n == most && compareFlows(f, top) < 0 {
			top = f
		}
	}
	s.Inode, s.Flows, s.Ports = int(min(inode, 1<<62)), len(flows), len(ports)
	if top.IsValid() {
		s.Proto = record.ProtoName(top.Proto)
		s.Src, s.SrcPort = top.Src.Addr().String(), int(top.Src.Port())
		s.Dst, s.DstPort = top.Dst.Addr().String(), int(top.Dst.Port())
	}
}

// tooBig says whether the packet tells a sender that one of its packets did not
// fit: ICMP type 3 code 4, or ICMPv6 type 2.
func tooBig(p *record.Packet) bool {
	if p.ICMPType == nil || p.ICMPCode == nil {
		return false
	}
	switch record.ProtoName(p.Flow.Proto) {
	case "icmp":
		return *p.ICMPType == 3 && *p.ICMPCode == 4
	case "icmpv6":
		return *p.ICMPType == 2
	}
	return false
}

// span is the time between the first and the last sample, in seconds.
func span(samples []*record.Drop) float64 {
	var first, last uint64
	for i, d := range samples {
		at := moment(d)
		if i == 0 || at < first {
			first = at
		}
		last = max(last, at)
	}
	return float64(last-first) / 1e9
}

// moment is when a drop happened, in nanoseconds of the kernel's clock, or of the
// host's where a capture has that alone.
func moment(d *record.Drop) uint64 {
	if d.KernelTime == 0 && d.Time.Unix() > 0 {
		return uint64(d.Time.UnixNano())
	}
	return d.KernelTime
}

func newSampleScope(d *record.Drop) *sampleScope {
	s := &sampleScope{
		Length: int(d.Length), EtherType: int(d.EtherType), Device: d.Device.Name,
		GSO: int(d.GSOSegments), ICMPType: -1, ICMPCode: -1,
	}
	p := d.Packet
	if p == nil {
		return s
	}
	const fin, syn, rst, ack = 1, 2, 4, 16
	s.FIN, s.SYN, s.RST, s.ACK = p.TCPFlags&fin != 0, p.TCPFlags&syn != 0, p.TCPFlags&rst != 0, p.TCPFlags&ack != 0
	s.TTL, s.Fragment, s.Tunnel, s.Multicast = int(p.TTL), p.Fragment, p.Tunnel, multicast(p)
	s.SrcRoute = p.SourceRoute
	if p.ICMPType != nil && p.ICMPCode != nil {
		s.ICMPType, s.ICMPCode = int(*p.ICMPType), int(*p.ICMPCode)
	}
	if len(p.VLANs) > 0 {
		s.VLAN = int(p.VLANs[0])
	}
	if p.Flow.IsValid() {
		s.Proto = record.ProtoName(p.Flow.Proto)
		s.Src, s.SrcPort = p.Flow.Src.Addr().String(), int(p.Flow.Src.Port())
		s.Dst, s.DstPort = p.Flow.Dst.Addr().String(), int(p.Flow.Dst.Port())
	}
	return s
}
