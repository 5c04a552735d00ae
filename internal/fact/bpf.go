package fact

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// The bpf system call, as far as it tells what is attached where. Nothing is
// loaded, attached or kept: a descriptor of a program or link is closed as
// soon as it was asked.

// Attach types of enum bpf_attach_type (include/uapi/linux/bpf.h).
const (
	attachFlowDissector = 17
	attachSkLookup      = 36
	attachTCXIngress    = 46
	attachTCXEgress     = 47
	attachNetkitPrimary = 54
	attachNetkitPeer    = 55
)

// What the calls need: before 5.8 there is no CAP_BPF.
const (
	capsQuery = "CAP_NET_ADMIN and CAP_BPF, or CAP_SYS_ADMIN"
	capsByID  = "CAP_SYS_ADMIN"
)

// bpf makes a call. attr must not be on the stack, nor anything that it points
// to.
func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// maxAttached is how many programs the kernel lets be at one place
// (BPF_CGROUP_MAX_PROGS, BPF_MPROG_MAX).
const maxAttached = 64

// progQuery is struct query of union bpf_attr, and room for the answer.
type progQuery struct {
	attr struct {
		target, attachType, queryFlags, attachFlags uint32
		progIDs                                     uint64
		count, _                                    uint32
		progFlags, linkIDs, linkFlags, revision     uint64
	}
	progs, links [maxAttached]uint32
}

// attached are the programs at one place in the order that they run.
type attached struct {
	progs []uint32
	// links are of the same length or nil; 0 is a program without a link.
	links []uint32
	flags uint32
}

// queryLinks is where an answer has the numbers of links too (bpf_mprog_query
// of kernel/bpf/mprog.c). Other places refuse to be asked.
func queryLinks(attachType uint32) bool {
	switch attachType {
	case attachTCXIngress, attachTCXEgress, attachNetkitPrimary, attachNetkitPeer:
		return true
	}
	return false
}

// at asks for the programs at an attach type of a device, a namespace or a
// cgroup. EINVAL is a kernel that does not know the type. The answer is good
// until the next question.
func (p *progQuery) at(target, attachType uint32) (attached, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(p)
	const short = 32 // up to count
	size := uintptr(short)
	p.attr.target, p.attr.attachType, p.attr.count, p.attr.attachFlags = target, attachType, maxAttached, 0
	p.attr.progIDs, p.attr.linkIDs = uint64(uintptr(unsafe.Pointer(&p.progs))), 0
	if queryLinks(attachType) {
		size, p.attr.linkIDs = unsafe.Sizeof(p.attr), uint64(uintptr(unsafe.Pointer(&p.links)))
		clear(p.links[:])
	}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&p.attr), size)
	if err != nil {
		return attached{}, err
	}
	n := min(p.attr.count, maxAttached)
	a := attached{progs: p.progs[:n], flags: p.attr.attachFlags}
	if p.attr.linkIDs != 0 {
		a.links = p.links[:n]
	}
	return a, nil
}

// object is what a call by number takes: the number, and where it is to go on.
type objectAttr struct{ id, next, flags, _ uint32 }

// ids gives the number of each object of a kind until the kernel has no more.
func ids(cmd int) iter.Seq2[uint32, error] {
	return func(yield func(uint32, error) bool) {
		attr := new(objectAttr)
		for {
			_, err := bpf(cmd, unsafe.Pointer(attr), unsafe.Sizeof(*attr)-4)
			if errors.Is(err, unix.ENOENT) {
				return
			}
			if !yield(attr.next, err) || err != nil {
				return
			}
			attr.id = attr.next
		}
	}
}

// maxInfo is more than struct bpf_prog_info and struct bpf_link_info have.
const maxInfo = 512

// objectInfo reads the information about the object of that number.
func objectInfo(cmd int, id uint32) ([]byte, error) {
	attr := &objectAttr{id: id}
	fd, err := bpf(cmd, unsafe.Pointer(attr), unsafe.Sizeof(*attr)-4)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, maxInfo)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&b[0])
	info := &struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), maxInfo, uint64(uintptr(unsafe.Pointer(&b[0])))}
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(info), unsafe.Sizeof(*info)); err != nil {
		return nil, err
	}
	return b[:min(info.size, maxInfo)], nil
}

// progTypes are BPF_PROG_TYPE_* as bpftool names them.
var progTypes = []string{
	"unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event", "cgroup_skb", "cgroup_sock",
	"lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb", "cgroup_device", "sk_msg", "raw_tracepoint", "cgroup_sock_addr",
	"lwt_seg6local", "lirc_mode2", "sk_reuseport", "flow_dissector", "cgroup_sysctl", "raw_tracepoint_writable", "cgroup_sockopt",
	"tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall", "netfilter",
}

// progInfo is what the kernel tells of a program. Its name has at most 15
// bytes.
type progInfo struct{ name, kind, tag string }

// parseProgInfo reads struct bpf_prog_info.
func parseProgInfo(b []byte) (p progInfo, err error) {
	const tag, name, end = 8, 64, 80
	if len(b) < end {
		return p, kernelnet.ErrShort
	}
	p.name, p.tag = text(b[name:end]), hex.EncodeToString(b[tag:tag+8])
	p.kind, _ = asName(progTypes...)(b[:4])
	return p, nil
}

// readProgInfo asks for a program.
func readProgInfo(id uint32) (progInfo, error) {
	b, err := objectInfo(unix.BPF_PROG_GET_FD_BY_ID, id)
	if err != nil {
		return progInfo{}, fmt.Errorf("program %d: %w", id, kernelnet.NeedsCap(err, capsByID))
	}
	return parseProgInfo(b)
}

// Types of links (enum bpf_link_type).
const (
	linkCgroup    = 3
	linkNetNS     = 5
	linkXDP       = 6
	linkNetfilter = 10
)

// linkInfo is what the kernel tells of a link.
type linkInfo struct {
	id, kind, prog uint32
	// cgroup is the number of a cgroup, target the index of a device or the
	// inode of a namespace; which of them says kind.
	cgroup             uint64
	target, attachType uint32
	// family, hook and priority are of netfilter.
	family, hook uint32
	priority     int32
}

// parseLinkInfo reads struct bpf_link_info.
func parseLinkInfo(b []byte) (l linkInfo, err error) {
	const union, end = 16, 32
	if len(b) < union {
		return l, kernelnet.ErrShort
	}
	// What a kernel does not have is 0.
	b = append(b[:len(b):len(b)], make([]byte, max(0, end-len(b)))...)
	num := func(i int) uint32 { return native.Uint32(b[i:]) }
	l = linkInfo{kind: num(0), id: num(4), prog: num(8)}
	switch l.kind {
	case linkCgroup:
		l.cgroup, l.attachType = native.Uint64(b[union:]), num(union+8)
	case linkNetfilter:
		l.family, l.hook, l.priority = num(union), num(union+4), int32(num(union+8))
	case linkNetNS, linkXDP:
		l.target, l.attachType = num(union), num(union+4)
	}
	return l, nil
}

// maxLinks is how many links are looked at. A host that is traced has some
// thousand.
const maxLinks = 16384

// readLinks lists the links that hold programs on the way of packets. A kernel
// before 5.8 has none.
func readLinks() ([]linkInfo, error) {
	var list []linkInfo
	n := 0
	for id, err := range ids(unix.BPF_LINK_GET_NEXT_ID) {
		if errors.Is(err, unix.EINVAL) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list links: %w", kernelnet.NeedsCap(err, capsByID))
		}
		if n++; n > maxLinks {
			return list, fmt.Errorf("list links: there are more than %d", maxLinks)
		}
		b, err := objectInfo(unix.BPF_LINK_GET_FD_BY_ID, id)
		if err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAGAIN) { // gone, or not there yet
				continue
			}
			return list, fmt.Errorf("link %d: %w", id, kernelnet.NeedsCap(err, capsByID))
		}
		l, err := parseLinkInfo(b)
		if err != nil {
			return list, fmt.Errorf("link %d: %w", id, err)
		}
		switch l.kind {
		case linkCgroup, linkNetNS, linkXDP, linkNetfilter:
			list = append(list, l)
		}
	}
	return list, nil
}
