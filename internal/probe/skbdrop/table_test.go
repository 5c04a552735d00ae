package skbdrop

import (
	"testing"
	"unsafe"
)

// fakeTable is a table in ordinary memory, written the way the program does.
func fakeTable(n int) (*table, []skbdropSlot) {
	slots := make([]skbdropSlot, n)
	return &table{
		words: unsafe.Slice((*uint64)(unsafe.Pointer(&slots[0])), n*slotWords),
		last:  make([]total, n),
	}, slots
}

func TestDrainGivesWhatWasAdded(t *testing.T) {
	tab, slots := fakeTable(4)
	key := skbdropDropKey{Location: 0xffffffff81000010, Reason: 1 << 16, Netns: 0xf0000007, Ifindex: 1 << 20, Ethertype: 0x86dd, IpProto: 58, Direction: uint8(Forward)}
	slots[2] = skbdropSlot{Key: key, Drops: 5, Bytes: 500}
	want := Key{Location: key.Location, Reason: key.Reason, NetNS: key.Netns, Ifindex: key.Ifindex, EtherType: key.Ethertype, IPProto: key.IpProto, Direction: Forward}

	type got struct {
		k            Key
		drops, bytes uint64
	}
	drain := func() (all []got) {
		tab.drain(func(k Key, drops, bytes uint64) { all = append(all, got{k, drops, bytes}) })
		return all
	}
	if all := drain(); len(all) != 1 || all[0] != (got{want, 5, 500}) {
		t.Fatalf("first drain = %+v", all)
	}
	if all := drain(); len(all) != 0 {
		t.Fatalf("drain of nothing new = %+v", all)
	}
	slots[2].Drops, slots[2].Bytes = 7, 900
	slots[0] = skbdropSlot{Key: skbdropDropKey{Location: 1}, Drops: 1, Bytes: 1}
	all := drain()
	if len(all) != 2 {
		t.Fatalf("drain = %+v", all)
	}
	// A slot seen for the first time comes last.
	if all[0] != (got{want, 2, 400}) || all[1] != (got{Key{Location: 1}, 1, 1}) {
		t.Fatalf("drain = %+v", all)
	}
}

func TestDrainDoesNotAllocate(t *testing.T) {
	tab, slots := fakeTable(64)
	for i := range slots {
		slots[i] = skbdropSlot{Key: skbdropDropKey{Location: uint64(i + 1)}, Drops: 1}
	}
	var sum uint64
	count := func(_ Key, drops, _ uint64) { sum += drops }
	tab.drain(count) // grows the list of fresh slots once
	if n := testing.AllocsPerRun(100, func() {
		slots[3].Drops++
		tab.drain(count)
	}); n != 0 {
		t.Errorf("drain allocates %v times", n)
	}
}

// BenchmarkDrain reads the default table of two CPUs, all slots in use.
func BenchmarkDrain(b *testing.B) {
	tab, slots := fakeTable(2 * 2048)
	for i := range slots {
		slots[i].Key.Location = uint64(i + 1)
	}
	var sum uint64
	b.ReportAllocs()
	for b.Loop() {
		for i := range slots {
			slots[i].Drops++
		}
		tab.drain(func(_ Key, drops, _ uint64) { sum += drops })
	}
	if want := uint64(b.N) * uint64(len(slots)); sum != want {
		b.Fatalf("drained %d, added %d", sum, want)
	}
}

func TestLayoutMatchesTheProgram(t *testing.T) {
	if got := unsafe.Sizeof(skbdropSlot{}); got != 64 {
		t.Errorf("a slot has %d bytes, want one cache line of 64", got)
	}
	for name, at := range map[string]uintptr{
		"drops": unsafe.Offsetof(skbdropSlot{}.Drops) / 8,
		"bytes": unsafe.Offsetof(skbdropSlot{}.Bytes) / 8,
	} {
		if want := map[string]uintptr{"drops": wordDrops, "bytes": wordBytes}[name]; at != want {
			t.Errorf("%s is word %d, read as word %d", name, at, want)
		}
	}
	if a, b := unsafe.Sizeof(Key{}), unsafe.Sizeof(skbdropDropKey{}); a != b {
		t.Errorf("a key has %d bytes here, %d in the program", a, b)
	}
}

func TestOptionsRefuseWhatTheProgramCannot(t *testing.T) {
	for name, o := range map[string]Options{
		"one argument":          {Args: 1},
		"five arguments":        {Args: 5},
		"slots no power of two": {Args: 4, Slots: 1000},
	} {
		if p, err := Open(o); err == nil {
			p.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
