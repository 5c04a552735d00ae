package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// lsmHook has a security module refuse what a socket is to receive.
func lsmHook() Scenario {
	return Scenario{
		Name:  "lsm-hook",
		Title: "packets that a security module (here a BPF program of type LSM) does not let a socket receive",
		build: buildLSM,
	}
}

func buildLSM(t *topology) (*rig, error) {
	// Only root sees the list, and only where securityfs is mounted.
	if list, err := os.ReadFile("/sys/kernel/security/lsm"); err == nil && !strings.Contains(string(list), "bpf") {
		return nil, errors.New("bpf is not among the security modules of this host: boot it with lsm=…,bpf")
	}
	array, err := t.newArray()
	if err != nil {
		return nil, err
	}
	code, err := refuseReceiving(array, t.host.Inode(), dstPort)
	if err != nil {
		return nil, err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lab", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "socket_sock_rcv_skb",
		Instructions: code, License: "GPL", // such programs must have it (kernel/bpf/bpf_lsm.c, bpf_lsm_verify_prog)
	})
	if err != nil {
		return nil, fmt.Errorf("load LSM program: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: prog})
	if err != nil {
		return nil, fmt.Errorf("attach LSM program: %w", err)
	}
	t.onClose(l.Close)
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	if _, err := t.sink(t.host, dstPort); err != nil {
		return nil, err
	}
	r.count(firstOf(array), "counter of the LSM program", "bpf map", "bpftool map dump name lab")
	r.repair = func() error { // the module allows it
		if err := l.Close(); err != nil {
			return fmt.Errorf("detach LSM program: %w", err)
		}
		return nil
	}
	return r, nil
}

// refuseReceiving counts and refuses what a socket of IPv4 on that port of that
// network namespace is to receive, and lets all others on the host receive.
func refuseReceiving(array *ebpf.Map, netns uint32, port int32) (asm.Instructions, error) {
	const allow = "allow"
	at, err := sockOffsets()
	if err != nil {
		return nil, err
	}
	check := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), // the socket, the first argument of the hook
		asm.LoadMem(asm.R2, asm.R1, at.family, asm.Half),
		asm.JNE.Imm(asm.R2, unix.AF_INET, allow),
		asm.LoadMem(asm.R2, asm.R1, at.port, asm.Half),
		asm.JNE.Imm(asm.R2, port, allow),
		asm.LoadMem(asm.R2, asm.R1, at.net, asm.DWord),
		asm.LoadMem(asm.R2, asm.R2, at.inode, asm.Word),
		asm.Mov.Imm32(asm.R3, int32(netns)),
		asm.JNE.Reg(asm.R2, asm.R3, allow),
	}
	code := append(check, countingVerdict(array, -int32(unix.EPERM))...)
	return append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol(allow), asm.Return()), nil
}

// offsets are those of what tells a socket, in bytes from its beginning, and of
// the inode from the beginning of its namespace.
type offsets struct{ family, port, net, inode int16 }

func sockOffsets() (o offsets, err error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return o, fmt.Errorf("read types of the kernel: %w", err)
	}
	for _, f := range []struct {
		to    *int16
		owner string
		name  string
	}{
		// struct sock begins with its struct sock_common, and both possible_net_t
		// and struct ns_common have what is wanted somewhere in them.
		{&o.family, "sock_common", "skc_family"},
		{&o.port, "sock_common", "skc_num"},
		{&o.net, "sock_common", "skc_net"},
		{&o.inode, "net", "ns"},
	} {
		if *f.to, err = offsetOf(spec, f.owner, f.name); err != nil {
			return o, err
		}
	}
	inum, err := offsetOf(spec, "ns_common", "inum")
	o.inode += inum
	return o, err
}

// offsetOf is where a member of a struct is, in bytes, also if it is in a
// struct or union without a name.
func offsetOf(spec *btf.Spec, owner, name string) (int16, error) {
	var s *btf.Struct
	if err := spec.TypeByName(owner, &s); err != nil {
		return 0, fmt.Errorf("find struct %s of the kernel: %w", owner, err)
	}
	if at, ok := memberIn(s.Members, name); ok {
		return int16(at), nil
	}
	return 0, fmt.Errorf("find struct %s of the kernel: it has no %s", owner, name)
}

func memberIn(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := m.Type.(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if at, ok := memberIn(inner, name); ok {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}
