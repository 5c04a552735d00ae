package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// cgroupBPF sends from a socket of a control group that has a program which
// refuses what goes out.
func cgroupBPF() Scenario {
	return Scenario{
		Name:  "cgroup-bpf",
		Title: "packets that a BPF program on the sender's control group refuses (EPERM), as IPAddressDeny= of systemd does",
		build: buildCgroupBPF,
	}
}

func buildCgroupBPF(t *topology) (*rig, error) {
	array, err := t.newArray()
	if err != nil {
		return nil, err
	}
	prog, err := loadProgram(ebpf.CGroupSKB, countingVerdict(array, 0))
	if err != nil {
		return nil, err
	}
	defer prog.Close() // the control group keeps it
	r := newRig(t)
	r.from, r.flow = t.host, flow(protoUDP, hostNet.Addr(), peerNet.Addr())
	s := sender{fd: -1, to: sockaddr(r.flow.Dst)}
	err = t.inGroup(prog, func() (err error) {
		s.fd, err = socket(unix.AF_INET, unix.SOCK_DGRAM)
		return err
	})
	if s.fd >= 0 {
		t.onClose(func() error { return unix.Close(s.fd) })
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(s.fd, sockaddr(r.flow.Src)); err != nil {
		return nil, fmt.Errorf("bind generator's socket to %s: %w", r.flow.Src, err)
	}
	r.emit = failing(s.datagrams(payload), unix.EPERM)
	r.count(firstOf(array), "counter of the program", "bpf map", "bpftool map dump name lab")
	r.repair = func() error { // a sender that is in no such group
		s, err := t.udpSender(t.host, fromPort(r.flow, srcPort+1).Src, r.flow.Dst)
		if err != nil {
			return err
		}
		r.emit = s.datagrams(payload)
		return t.receive(t.peer)()
	}
	return r, nil
}

// inGroup calls open on a thread in the host's namespace that is in a control
// group of its own, which has the program on what goes out. A socket belongs to
// the group in which it was opened, and keeps the group's programs when the group
// is gone (kernel/bpf/cgroup.c, cgroup_bpf_release), so nothing is left
// afterwards. The hierarchy is mounted for this alone, and nowhere in the file
// system; the group is of threads, so that the rest of this process stays out.
func (t *topology) inGroup(prog *ebpf.Program, open func() error) (err error) {
	root, err := mountCgroups()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	home, err := ownGroup()
	if err != nil {
		return err
	}
	home = fmt.Sprintf("/proc/self/fd/%d%s", root, home)
	group, err := os.MkdirTemp(home, "whydrop-lab-")
	if err != nil {
		return fmt.Errorf("make control group: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(group)) }()
	if err := writeGroup(group, "cgroup.type", "threaded"); err != nil {
		return err
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: group, Attach: ebpf.AttachCGroupInetEgress, Program: prog})
	if err != nil {
		return fmt.Errorf("attach program to the control group: %w", err)
	}
	t.onClose(l.Close)
	return t.host.Do(func() error {
		const threads, self = "cgroup.threads", "0"
		if err := writeGroup(group, threads, self); err != nil {
			return err
		}
		return errors.Join(open(), writeGroup(home, threads, self))
	})
}

// mountCgroups returns the root of the control groups (version 2) that this
// process sees.
func mountCgroups() (int, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open control groups: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("open control groups: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount control groups: %w", err)
	}
	return root, nil
}

// ownGroup is the path of the control group (version 2) of this process.
func ownGroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find own control group: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("find own control group: there is none of version 2")
}

func writeGroup(dir, name, value string) error {
	if err := os.WriteFile(dir+"/"+name, []byte(value), 0); err != nil {
		return fmt.Errorf("write %s of control group %s: %w", value, filepath.Base(dir), err)
	}
	return nil
}
