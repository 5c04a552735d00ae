package lab

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// The programs here are the reason of a loss, as a rule of a firewall is, and
// observe nothing.

// verdict is a program that says the same about every packet.
func verdict(v int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, v), asm.Return()}
}

// countingVerdict counts every packet in the first element of an array before
// it says its verdict.
func countingVerdict(array *ebpf.Map, v int32) asm.Instructions {
	const verdict = "verdict"
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), // the index
		asm.LoadMapPtr(asm.R1, array.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, verdict),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, v).WithSymbol(verdict),
		asm.Return(),
	}
}

// newArray makes an array of one counter that goes away with the topology.
func (t *topology) newArray() (*ebpf.Map, error) {
	moreMemory()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "lab", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make map for a counter: %w", err)
	}
	t.onClose(m.Close)
	return m, nil
}

// firstOf is the counter in an array.
func firstOf(array *ebpf.Map) counter {
	return func() (v uint64, err error) {
		if err := array.Lookup(uint32(0), &v); err != nil {
			return 0, fmt.Errorf("read map: %w", err)
		}
		return v, nil
	}
}

// loadProgram loads a program, which goes away when it is closed and nothing
// that it was attached to is left.
func loadProgram(kind ebpf.ProgramType, code asm.Instructions) (*ebpf.Program, error) {
	moreMemory()
	// The licence is the program's own: it calls nothing that asks for GPL.
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "lab", Type: kind, Instructions: code, License: "Apache-2.0"})
	if err != nil {
		return nil, fmt.Errorf("load %s program: %w", kind, err)
	}
	return p, nil
}

// moreMemory matters before 5.11, where maps and programs count against
// RLIMIT_MEMLOCK. Without the capability to raise it they may still fit.
func moreMemory() { _ = rlimit.RemoveMemlock() }
