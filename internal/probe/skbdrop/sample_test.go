package skbdrop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"
)

// wire writes a record as the kernel does.
func wire(t testing.TB, e skbdropEvent) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, e); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func event() skbdropEvent {
	e := skbdropEvent{
		TimeNs: 5, SkInode: 77, SkCookie: 78, Len: 1000, DataLen: 10, Truesize: 2304, Mark: 3,
		Cpu: 1, Pid: 42, Tid: 43, StackBytes: 16, GsoSegs: 2, GsoSize: 1448, Queue: 4,
		VlanTci: 5, VlanProto: 0x8100, SkFamily: 2, SkProtocol: 17, SnapBytes: 3,
		SkState: 7, SkFrom: uint8(SocketRX), Start: uint8(StartLink),
		Key: skbdropDropKey{Location: 0xffffffff81000010, Reason: 6, Netns: 0xf0000001, Ifindex: 9, Ethertype: 0x800, IpProto: 17, Direction: uint8(RX)},
	}
	copy(e.Stack[:], []uint64{0xffffffff81000010, 0xffffffff81000020, 99})
	copy(e.Snap[:], []byte{1, 2, 3, 4})
	for i, c := range "swapper/0" {
		e.Comm[i] = int8(c)
	}
	for i := range e.Dev {
		e.Dev[i] = 'd' // fills the field: no NUL at its end
	}
	return e
}

func TestDecode(t *testing.T) {
	var s Sample
	if err := s.decode(wire(t, event())); err != nil {
		t.Fatal(err)
	}
	want := Key{Location: 0xffffffff81000010, Reason: 6, NetNS: 0xf0000001, Ifindex: 9, EtherType: 0x800, IPProto: 17, Direction: RX}
	if s.Key != want {
		t.Errorf("key = %+v, want %+v", s.Key, want)
	}
	if s.Comm() != "swapper/0" || s.Device() != "dddddddddddddddd" {
		t.Errorf("comm %q, device %q", s.Comm(), s.Device())
	}
	if !bytes.Equal(s.Headers(), []byte{1, 2, 3}) {
		t.Errorf("headers = %v", s.Headers())
	}
	if got := s.Stack(); len(got) != 2 || got[0] != want.Location {
		t.Errorf("stack = %x", got)
	}
	if s.Time != 5 || s.PID != 42 || s.TID != 43 || s.Length != 1000 || s.TrueSize != 2304 ||
		s.SocketInode != 77 || s.SocketFrom != SocketRX || s.Start != StartLink || s.GSOSegs != 2 {
		t.Errorf("sample = %+v", s)
	}
}

func TestDecodeWithoutStack(t *testing.T) {
	e := event()
	e.StackBytes = -14 // bpf_get_stack's EFAULT
	var s Sample
	if err := s.decode(wire(t, e)); err != nil {
		t.Fatal(err)
	}
	if len(s.Stack()) != 0 {
		t.Errorf("stack = %x, want none", s.Stack())
	}
}

func TestDecodeRefuses(t *testing.T) {
	long := event()
	long.SnapBytes = uint16(len(long.Snap)) + 1
	deep := event()
	deep.StackBytes = int32(len(deep.Stack)*8) + 1
	good := wire(t, event())
	for name, b := range map[string][]byte{
		"empty":            nil,
		"one byte short":   good[:len(good)-1],
		"too long":         append(bytes.Clone(good), make([]byte, 8)...),
		"too many headers": wire(t, long),
		"stack too deep":   wire(t, deep),
	} {
		var s Sample
		if err := s.decode(b); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: error = %v, want ErrRecord", name, err)
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	b := wire(t, event())
	var s Sample
	if n := testing.AllocsPerRun(100, func() {
		if err := s.decode(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("decode allocates %v times", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(wire(f, event()))
	f.Add(wire(f, skbdropEvent{}))
	f.Add(bytes.Repeat([]byte{0xff}, int(unsafe.Sizeof(skbdropEvent{}))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Sample
		err := s.decode(b)
		if err != nil && !errors.Is(err, ErrRecord) {
			t.Fatalf("error of no class: %v", err)
		}
		if err != nil {
			return
		}
		if len(s.Headers()) > len(b) || len(s.Stack())*8 > len(b) || len(s.Comm()) > 16 || len(s.Device()) > 16 {
			t.Fatalf("more came out than went in: %d %d %q %q", len(s.Headers()), len(s.Stack()), s.Comm(), s.Device())
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := wire(b, event())
	var s Sample
	b.ReportAllocs()
	for b.Loop() {
		if err := s.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
