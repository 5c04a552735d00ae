package skbdrop

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Direction is a hint at which way a packet went.
type Direction uint8

// The values of enum direction in skbdrop.bpf.c.
const (
	Unknown Direction = iota
	RX
	TX
	Forward
	// Hardware dropped the packet, which it had received.
	Hardware
)

// Key is what drops are counted by, in the kernel's numbers. It is laid out
// as struct drop_key.
type Key struct {
	// Location is the address that freed the packet. Of a drop by hardware it is
	// what Probe.Trap takes.
	Location  uint64
	Reason    uint32
	NetNS     uint32
	Ifindex   uint32
	EtherType uint16
	// IPProto is the protocol of IPv4, or the first next header of IPv6.
	IPProto   uint8
	Direction Direction
}

// slotWords is the size of struct slot in 8-byte words; the key takes the
// first three, then drops and bytes.
const slotWords = int(unsafe.Sizeof(skbdropSlot{}) / 8)

const (
	wordDrops = 3
	wordBytes = 4
)

// table is the slots of all CPUs, shared with the kernel, and what was read
// of them last.
type table struct {
	mem   []byte
	words []uint64
	last  []total
	fresh []int // slots first seen by the current drain
}

type total struct{ drops, bytes uint64 }

// mapTable maps the slots for reading.
func mapTable(m *ebpf.Map) (*table, error) {
	n := int(m.MaxEntries())
	size := n * slotWords * 8
	page := os.Getpagesize()
	mem, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the table of drops: %w", err)
	}
	return &table{
		mem:   mem,
		words: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), n*slotWords),
		last:  make([]total, n),
	}, nil
}

func (t *table) unmap() error {
	if t.mem == nil {
		return nil
	}
	mem := t.mem
	t.mem, t.words = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap the table of drops: %w", err)
	}
	return nil
}

// drain calls f with what each slot gained since the last drain.
//
// A slot's key is written once, before its first drop is counted. On CPUs
// that may show the two stores in another order, the key of a slot seen for
// the first time is read after all others, when it has long arrived.
func (t *table) drain(f func(k Key, drops, bytes uint64)) {
	t.fresh = t.fresh[:0]
	for i := range t.last {
		drops := atomic.LoadUint64(&t.words[i*slotWords+wordDrops])
		switch {
		case drops == t.last[i].drops:
		case t.last[i].drops == 0:
			t.fresh = append(t.fresh, i)
		default:
			t.emit(i, f)
		}
	}
	for _, i := range t.fresh {
		t.emit(i, f)
	}
}

func (t *table) emit(i int, f func(k Key, drops, bytes uint64)) {
	w := t.words[i*slotWords : (i+1)*slotWords]
	drops, bytes := atomic.LoadUint64(&w[wordDrops]), atomic.LoadUint64(&w[wordBytes])
	f(keyOf(w), drops-t.last[i].drops, bytes-t.last[i].bytes)
	t.last[i] = total{drops, bytes}
}

// keyOf reads struct drop_key of a little-endian machine.
func keyOf(w []uint64) Key {
	nsReason, rest := atomic.LoadUint64(&w[1]), atomic.LoadUint64(&w[2])
	return Key{
		Location:  atomic.LoadUint64(&w[0]),
		Reason:    uint32(nsReason),
		NetNS:     uint32(nsReason >> 32),
		Ifindex:   uint32(rest),
		EtherType: uint16(rest >> 32),
		IPProto:   uint8(rest >> 48),
		Direction: Direction(rest >> 56),
	}
}
