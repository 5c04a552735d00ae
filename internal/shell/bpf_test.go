package shell

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// TestWatchingEnds: what ended the watching is said once.
func TestWatchingEnds(t *testing.T) {
	want := errors.New("the map is gone")
	s := &bpfSession{bpf: &bpf{running: true}, cancel: func() {}, err: want, alerts: make(chan []dropmon.Alert)}
	close(s.alerts)
	if err := s.Receive(time.Minute, nil); !errors.Is(err, want) {
		t.Errorf("it says %v", err)
	}
	if _, err := s.Stop(nil); err != nil || s.bpf.running {
		t.Errorf("and again: %v", err)
	}
}

func TestPointsOf(t *testing.T) {
	count := func(pc record.Address, index uint32, n uint64) record.Count {
		return record.Count{Key: record.Key{Location: record.Location{Address: pc}, Device: record.Device{Index: index}}, Drops: n}
	}
	hardware := count(0, 1, 5)
	hardware.Reason.Subsystem = record.SubsystemDevlink
	got := pointsOf([]record.Count{count(0x20, 1, 2), count(0x10, 1, 3), count(0x30, 1, 4), count(0x10, 2, 1), hardware, count(0x40, 1, 1<<40)})
	want := []dropmon.Point{{PC: 0x40, Drops: 1<<32 - 1}, {PC: 0x10, Drops: 4}, {PC: 0x30, Drops: 4}, {PC: 0x20, Drops: 2}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// frame is a UDP packet of 33 bytes in an Ethernet frame, as far as it was
// sampled.
var frame = append([]byte{
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0,
	0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
}, 0x9c, 0x40, 0, 9, 0, 13, 0, 0)

func TestPacketOf(t *testing.T) {
	at := time.Unix(1, 2)
	drop := record.Drop{
		Time: at, Length: 13, Headers: frame, Packet: &record.Packet{SrcMAC: "02:00:00:00:00:02"},
		Key: record.Key{
			Reason: record.Reason{Name: "NO_SOCKET"}, Location: record.Location{Address: 0x10}, EtherType: 0x800,
			Device: record.Device{Index: 3, Name: "eth0"}, Direction: record.DirectionRX,
		},
	}
	whole := dropmon.Packet{
		PC: 0x10, Reason: "NO_SOCKET", Time: at, Protocol: 0x800, OriginalLength: 47, Payload: frame, InIndex: 3, InName: "eth0",
	}
	for _, tt := range []struct {
		name     string
		truncate uint32
		change   func(*record.Drop)
		want     func(*dropmon.Packet)
	}{
		{"whole", 0, func(*record.Drop) {}, func(*dropmon.Packet) {}},
		{"cut", 20, func(*record.Drop) {}, func(p *dropmon.Packet) { p.Payload = frame[:20] }},
		{"cut behind what was sampled", 64, func(*record.Drop) {}, func(*dropmon.Packet) {}},
		{"sent", 0, func(d *record.Drop) { d.Direction = record.DirectionTX }, func(p *dropmon.Packet) { p.InIndex, p.InName = 0, "" }},
		{
			"from the network header on", 0, func(d *record.Drop) { d.Packet, d.Headers = &record.Packet{}, frame[14:] },
			func(p *dropmon.Packet) { p.Payload, p.OriginalLength = frame[14:], 33 },
		},
		{"several segments", 0, func(d *record.Drop) { d.Length = 3000 }, func(p *dropmon.Packet) { p.OriginalLength = 3000 }},
		{"no packet", 0, func(d *record.Drop) { d.Packet, d.Headers = nil, nil }, func(p *dropmon.Packet) { p.Payload, p.OriginalLength = nil, 13 }},
		{"not what it says", 0, func(d *record.Drop) { d.Headers = []byte{1, 2} }, func(p *dropmon.Packet) { p.Payload, p.OriginalLength = []byte{1, 2}, 13 }},
	} {
		d, want := drop, whole
		tt.change(&d)
		tt.want(&want)
		if diff := cmp.Diff(&want, packetOf(&d, tt.truncate)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	if !bytes.Equal(frame, drop.Headers) {
		t.Error("the sample was changed")
	}
}
