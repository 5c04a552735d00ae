//go:build root

package skbdrop

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/testkit"
)

// No machine of the tests has a card that reports drops. What a driver would
// give the tracepoint is made here, in memory of the kernel (the value of a
// map), with this kernel's own offsets; and the kernel runs the very program
// that is attached with it (BPF_PROG_TEST_RUN, 5.10 for raw tracepoints).

// fakeNetNS is an inode that no namespace has.
const fakeNetNS = 0xefff1234

// card is a network card that there is not.
type card struct {
	t    *testing.T
	spec *btf.Spec
	mem  *ebpf.Map
	base uint64 // where the kernel has the bytes
	b    []byte
	used int
	dev  uint64
}

// newCard makes a card with one port: fake7, number 7, in fakeNetNS.
func newCard(t *testing.T) *card {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DEVLINK")
	types, err := kernel.Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	if has, err := types.HasTrapReport(); err != nil || !has {
		t.Fatalf("a kernel with devlink has the tracepoint: %v, %v", has, err)
	}
	const room = 32 << 10
	c := &card{t: t, spec: types.Spec, b: make([]byte, room)}
	c.mem, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: room, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.mem.Close() })
	c.base = addressOf(t, c.mem)
	network := c.alloc("net")
	c.put(network+c.at("net", "ns")+c.at("ns_common", "inum"), 4, fakeNetNS)
	c.dev = c.alloc("net_device")
	c.text(c.dev+c.at("net_device", "name"), "fake7")
	c.put(c.dev+c.at("net_device", "ifindex"), 4, 7)
	c.put(c.dev+c.at("net_device", "type"), 2, 1)
	c.put(c.dev+c.at("net_device", "nd_net"), 8, network)
	return c
}

// addressOf lets a program tell where the first value of a map is.
func addressOf(t *testing.T, m *ebpf.Map) uint64 {
	t.Helper()
	out, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	lookup := func(m *ebpf.Map) asm.Instructions {
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, m.FD()), asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "end"),
		}
	}
	ins := append(lookup(m), asm.Mov.Reg(asm.R6, asm.R0))
	ins = append(ins, lookup(out)...)
	ins = append(ins, asm.StoreMem(asm.R0, 0, asm.R6, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: ins})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	run(t, prog, 0)
	var at uint64
	if err := out.Lookup(uint32(0), &at); err != nil || at>>63 == 0 {
		t.Fatalf("the map is at %#x, %v", at, err)
	}
	return at
}

// run has the kernel run a program of a raw tracepoint on CPU 0.
func run(t *testing.T, prog *ebpf.Program, args ...uint64) {
	t.Helper()
	const onCPU = 1 // BPF_F_TEST_RUN_ON_CPU
	if _, err := prog.Run(&ebpf.RunOptions{Context: args, Flags: onCPU}); err != nil {
		t.Fatalf("run %s: %v", prog, err)
	}
}

// at is the offset of a field of a structure of this kernel.
func (c *card) at(structure, field string) uint64 {
	c.t.Helper()
	var s *btf.Struct
	if err := c.spec.TypeByName(structure, &s); err != nil {
		c.t.Fatal(err)
	}
	offset, ok := memberAt(s, field)
	if !ok {
		c.t.Fatalf("%s has no %s", structure, field)
	}
	return offset
}

// memberAt looks into members without a name, too.
func memberAt(in btf.Type, field string) (uint64, bool) {
	var members []btf.Member
	switch v := btf.UnderlyingType(in).(type) {
	case *btf.Struct:
		members = v.Members
	case *btf.Union:
		members = v.Members
	}
	for _, m := range members {
		if m.Name == field {
			return uint64(m.Offset.Bytes()), true
		}
		if m.Name != "" {
			continue
		}
		if inner, ok := memberAt(m.Type, field); ok {
			return uint64(m.Offset.Bytes()) + inner, true
		}
	}
	return 0, false
}

// alloc makes room for a structure and returns its address.
func (c *card) alloc(structure string) uint64 {
	c.t.Helper()
	var s *btf.Struct
	if err := c.spec.TypeByName(structure, &s); err != nil {
		c.t.Fatal(err)
	}
	return c.room(int(s.Size))
}

func (c *card) room(n int) uint64 {
	at := c.base + uint64(c.used)
	if c.used += (n + 63) &^ 63; c.used > len(c.b) {
		c.t.Fatal("the card's memory is full")
	}
	return at
}

func (c *card) put(at uint64, size int, v uint64) {
	var word [8]byte
	binary.NativeEndian.PutUint64(word[:], v)
	copy(c.b[at-c.base:], word[:size])
}

func (c *card) text(at uint64, s string) uint64 {
	copy(c.b[at-c.base:], s+"\x00")
	return at
}

// trap makes the metadata of a report.
func (c *card) trap(name, group string, kind uint64, dev uint64) uint64 {
	c.t.Helper()
	const meta = "devlink_trap_metadata"
	m := c.alloc(meta)
	c.put(m+c.at(meta, "trap_name"), 8, c.text(c.room(len(name)+1), name))
	c.put(m+c.at(meta, "trap_group_name"), 8, c.text(c.room(len(group)+1), group))
	c.put(m+c.at(meta, "trap_type"), 4, kind)
	c.put(m+c.at(meta, "input_dev"), 8, dev)
	return m
}

// packet makes an skb as drivers report one: the link header is known and its
// data, the network header is not.
func (c *card) packet(frame []byte) uint64 {
	c.t.Helper()
	const headroom, size = 64, 512
	skb, head := c.alloc("sk_buff"), c.room(size+512)
	copy(c.b[head-c.base+headroom:], frame)
	for field, v := range map[string]struct {
		size  int
		value uint64
	}{
		"head": {8, head}, "data": {8, head + headroom}, "mac_header": {2, headroom},
		"tail": {4, headroom + uint64(len(frame))}, "end": {4, size}, "len": {4, uint64(len(frame))},
		"protocol": {2, uint64(frame[12]) | uint64(frame[13])<<8},
	} {
		c.put(skb+c.at("sk_buff", field), v.size, v.value)
	}
	return skb
}

// sync brings to the kernel what was put.
func (c *card) sync() {
	c.t.Helper()
	if err := c.mem.Put(uint32(0), c.b); err != nil {
		c.t.Fatal(err)
	}
}

// frames are a UDP packet over IPv4 and one of ICMPv6.
func frames() (v4, v6 []byte) {
	v4 = append([]byte{0xff, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0},
		192, 0, 2, 2, 198, 51, 100, 7, 0x10, 0, 0x20, 0, 0, 12, 0, 0, 1, 2, 3, 4)
	v6 = append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, unix.IPPROTO_ICMPV6, 64}, make([]byte, 40)...)
	return v4, v6
}
