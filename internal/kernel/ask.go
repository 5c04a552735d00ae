package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/whydrop/whydrop/record"
)

const (
	// askedText is the room for what the kernel calls an address, in bytes: a
	// name (KSYM_NAME_LEN is 512), two numbers, a module (MODULE_NAME_LEN is 56).
	askedText = 1024 - askedAddr
	// askedAddr is the room for the address, in bytes, before the text.
	askedAddr = 8
	// maxPadding bounds how many symbols that name no function are passed over to
	// find the function before them.
	maxPadding = 8
)

// asker has the kernel itself name addresses, in the words of printk's %pS. It is
// a program that is attached nowhere and runs once for each question: that takes
// microseconds, where to read all of /proc/kallsyms takes 50 ms, for the kernel
// writes every line of it anew.
//
// It needs bpf_snprintf (Linux 5.13, kernel/bpf/helpers.c) and the right to load
// a program of tracing (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN).
type asker struct {
	program *ebpf.Program
	memory  *ebpf.Memory // the address, and behind it the text
	state   *ebpf.Map
}

// newAsker loads the program.
func newAsker() (*asker, error) {
	a := &asker{}
	err := a.load()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask the kernel for names: %w", err), a.close())
	}
	return a, nil
}

func (a *asker) load() (err error) {
	// The kernel takes a format only from a map that never changes any more.
	format, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "whydrop_format", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1,
		Flags:    bpfReadOnlyProg,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: []byte("%pS\x00")}},
	})
	if err != nil {
		return fmt.Errorf("map of the format: %w", err)
	}
	defer format.Close() // the program holds it
	if err := format.Freeze(); err != nil {
		return fmt.Errorf("map of the format: %w", err)
	}
	a.state, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "whydrop_names", Type: ebpf.Array, KeySize: 4, ValueSize: askedAddr + askedText, MaxEntries: 1,
		Flags: bpfMapped,
	})
	if err != nil {
		return fmt.Errorf("map of the text: %w", err)
	}
	if a.memory, err = a.state.Memory(); err != nil {
		return fmt.Errorf("map the text: %w", err)
	}
	a.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "whydrop_names", Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{
			// bpf_snprintf(text, size of text, "%pS", &address, 8)
			asm.LoadMapValue(asm.R4, a.state.FD(), 0),
			asm.Mov.Reg(asm.R1, asm.R4),
			asm.Add.Imm(asm.R1, askedAddr),
			asm.Mov.Imm(asm.R2, askedText),
			asm.LoadMapValue(asm.R3, format.FD(), 0),
			asm.Mov.Imm(asm.R5, askedAddr),
			asm.FnSnprintf.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	return nil
}

const (
	bpfReadOnlyProg = 1 << 7  // BPF_F_RDONLY_PROG of include/uapi/linux/bpf.h
	bpfMapped       = 1 << 10 // BPF_F_MMAPABLE
)

// text is what the kernel calls an address: name+0xoffset/0xsize [module], or the
// number where it has no name for it.
func (a *asker) text(addr uint64) (string, error) {
	var question [askedAddr + 1]byte // ends what was answered before
	binary.NativeEndian.PutUint64(question[:], addr)
	if _, err := a.memory.WriteAt(question[:], 0); err != nil {
		return "", fmt.Errorf("ask the kernel for a name: %w", err)
	}
	if _, err := a.program.Run(nil); err != nil {
		return "", fmt.Errorf("ask the kernel for a name: %w", err)
	}
	var answer [askedText]byte
	if _, err := a.memory.ReadAt(answer[:], askedAddr); err != nil {
		return "", fmt.Errorf("ask the kernel for a name: %w", err)
	}
	end := bytes.IndexByte(answer[:], 0)
	if end <= 0 {
		return "", errors.New("ask the kernel for a name: it did not answer")
	}
	return string(answer[:end]), nil
}

// resolve names an address. sure is false where the kernel's words do not tell
// all that its table does.
func (a *asker) resolve(addr uint64) (at record.Location, sure bool, err error) {
	return askFor(addr, a.text)
}

// askFor makes of the kernel's words what Symbols.Resolve makes of its table: an
// address in the padding before a function belongs to the function before. Of
// several names of a function the kernel may tell another one than the table is
// searched for.
func askFor(addr uint64, ask func(uint64) (string, error)) (at record.Location, sure bool, err error) {
	at.Address = record.Address(addr)
	for place, tries := addr, 0; tries < maxPadding; tries++ {
		text, err := ask(place)
		if err != nil {
			return at, false, err
		}
		s, ok := splitSymbolic(text)
		switch {
		case !ok || s.offset > place || s.offset >= s.size || isDoubtful(s.name):
			return at, false, nil
		case !isNoFunction([]byte(s.name)):
			at.Symbol, at.Module, at.Offset = s.name, s.module, addr-(place-s.offset)
			return at, true, nil
		case s.offset == place:
			return at, false, nil
		}
		place -= s.offset + 1
	}
	return at, false, nil
}

// doubtful begin names that share their address with a better one, are none of a
// function (see Symbols.better), or are of what the kernel compiled while it runs,
// which these words do not tell (bpf_address_lookup of include/linux/filter.h sets
// no module).
var doubtful = []string{
	"__do_sys_", "__do_compat_sys_", "__pi_", clangPadding, "_etext", "_einittext",
	"bpf_prog_", "bpf_trampoline_", "bpf_dispatcher_", "bpf_struct_ops_", "bpf__",
}

// isDoubtful says whether only the table tells what a name is worth.
func isDoubtful(name string) bool {
	return isMarker(name) || slices.ContainsFunc(doubtful, func(p string) bool { return strings.HasPrefix(name, p) })
}

// close lets go of the program.
func (a *asker) close() error {
	var err error
	if a.program != nil {
		err = a.program.Close()
	}
	if a.state != nil {
		err = errors.Join(err, a.state.Close())
	}
	return err
}
