package observe

import (
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// FuzzPacketAlerts: whatever bytes a packet has, it is counted once.
func FuzzPacketAlerts(f *testing.F) {
	f.Add(frame(1), uint16(0x800), uint32(42), false)
	f.Add(frame(1)[14:], uint16(0x800), uint32(28), false)
	f.Add([]byte{1, 2, 3}, uint16(0x86dd), uint32(0), true)
	f.Add([]byte{}, uint16(0), uint32(1<<31), true)
	f.Fuzz(func(t *testing.T, payload []byte, protocol uint16, length uint32, hard bool) {
		b := newAlertBook(false)
		p := &dropmon.Packet{Time: time.Unix(1, 0), Payload: payload, Protocol: protocol, OriginalLength: length, PC: 1, Symbol: string(payload)}
		if hard {
			p.Origin = dropmon.OriginHardware
		}
		b.take(dropmon.Alert{Packet: p})
		names := dropmonNames{reasons: func() []record.Reason { return nil }}
		var drops uint64
		for k, n := range b.packets {
			drops += n.drops
			if key := names.packet(k); key.Hardware() != hard {
				t.Errorf("key %+v", key)
			}
		}
		if drops != 1 || len(b.samples) != 1 {
			t.Errorf("%d drops, %d samples", drops, len(b.samples))
		}
		for i := range b.samples {
			if d := names.drop(&b.samples[i], time.Hour); d.Length != length {
				t.Errorf("sample %+v", d)
			}
		}
	})
}
