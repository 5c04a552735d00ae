package fact

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// checkOptionalDevice accepts nothing, or a device.
func checkOptionalDevice(arg string) error {
	if arg == "" {
		return nil
	}
	return checkDevice(arg)
}

// programs finds the eBPF programs that packets meet.
type programs struct {
	*query
	ask   progQuery
	infos map[uint32]progInfo
	// links are known after they were asked for.
	links []linkInfo
	// unread says what could not be read, each reason once.
	unread map[string]bool
	// silent are attach types that this kernel does not have.
	silent map[uint32]bool
}

// readPrograms gives the eBPF programs on a device; without one, those of all
// devices of the namespace, those of the namespace itself, and those of the
// cgroups, which belong to no namespace. The value is the program's name.
func readPrograms(q *query) error {
	q.source, q.command = "BPF_PROG_QUERY", "bpftool net show"
	devices, err := q.programDevices()
	if err != nil {
		return err
	}
	if q.arg != "" && len(devices) == 0 {
		return nil
	}
	p := &programs{query: q, infos: map[uint32]progInfo{}, unread: map[string]bool{}, silent: map[uint32]bool{}}
	p.links, err = readLinks()
	p.note("links", err)
	for _, d := range devices {
		p.note("xdp", p.xdp(d))
	}
	p.note("tc", p.filters(devices))
	for _, d := range devices {
		p.note("tcx", p.queue(d, "tcx", attachTCXIngress, "ingress"))
		p.note("tcx", p.queue(d, "tcx", attachTCXEgress, "egress"))
		if d.fields["kind"] == "netkit" {
			p.note("netkit", p.queue(d, "netkit", attachNetkitPrimary, "primary"))
			p.note("netkit", p.queue(d, "netkit", attachNetkitPeer, "peer"))
		}
	}
	if q.arg == "" {
		p.note("tc actions", p.actions())
		p.note("netfilter", p.netfilter())
		p.note("namespace", p.namespace())
		p.note("cgroups", p.cgroups())
	}
	p.source, p.command = "BPF_PROG_QUERY", "bpftool net show; bpftool cgroup tree; bpftool link show"
	for _, why := range slices.Sorted(maps.Keys(p.unread)) {
		p.missing(why)
	}
	return nil
}

// note keeps why something could not be read; the rest is given all the same.
func (p *programs) note(what string, err error) {
	if err != nil && !errors.Is(err, unix.ENOSYS) { // without bpf(2) there are no programs
		p.unread[what+": "+err.Error()] = true
	}
}

// maxDevices is how many devices of a namespace are looked at.
const maxDevices = 8192

// programDevices are the device that was asked for, or all.
func (q *query) programDevices() ([]*device, error) {
	if q.arg != "" {
		d, err := deviceByName(q.arg)
		if errors.Is(err, unix.ENODEV) {
			return nil, nil
		}
		return []*device{d}, err
	}
	var list []*device
	total := 0
	const skipStats = 8 // RTEXT_FILTER_SKIP_STATS
	m := ifinfo(0).Attr(unix.IFLA_EXT_MASK, native.AppendUint32(nil, skipStats))
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.RTM_NEWLINK, m, func() { list, total = nil, 0 }, func(b []byte) error {
		d, err := parseDevice(b)
		if total++; err == nil && total <= maxDevices {
			list = append(list, d)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	if total > maxDevices {
		q.missing(fmt.Sprintf("%d more devices are left out", total-maxDevices))
	}
	return list, nil
}

// program adds a program.
func (p *programs) program(name string, id uint32, f fields) {
	info, ok := p.infos[id]
	if !ok {
		var err error
		info, err = readProgInfo(id)
		if !errors.Is(err, unix.ENOENT) { // else it is gone
			p.note("names", withoutID(err))
		}
		p.infos[id] = info
	}
	f["id"] = decimal(id)
	for k, v := range map[string]string{"name": info.name, "type": info.kind, "tag": info.tag} {
		if v != "" {
			f[k] = v
		}
	}
	value := info.name
	if value == "" {
		value = "id " + f["id"]
	}
	p.add(name, value, f)
}

// withoutID is the reason alone, which is the same for every program.
func withoutID(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// xdp adds the programs on a device before there is an skb, in each mode.
func (p *programs) xdp(d *device) error {
	p.source, p.command = "IFLA_XDP", "ip -d link show dev "+shell(d.name)
	modes, err := xdpModes(d.xdp)
	if err != nil {
		return err
	}
	for _, m := range modes {
		f := fields{"hook": "xdp", "dev": d.name, "attach": m.name}
		p.setLink(f, func(l linkInfo) bool { return l.kind == linkXDP && l.target == d.index && l.prog == m.id })
		p.program(fmt.Sprintf("xdp %s %s", d.name, m.name), m.id, f)
	}
	return nil
}

// setLink adds the number of the one link that fits. The index of a device and
// a program can be the same in another namespace.
func (p *programs) setLink(f fields, fits func(linkInfo) bool) {
	i := slices.IndexFunc(p.links, fits)
	if i >= 0 && !slices.ContainsFunc(p.links[i+1:], fits) {
		f["link"] = decimal(p.links[i].id)
	}
}

// filters adds the classifiers of tc that are eBPF programs.
func (p *programs) filters(devices []*device) error {
	p.source = "RTM_GETTFILTER"
	byIndex := map[uint32]*device{}
	for _, d := range devices {
		byIndex[d.index] = d
	}
	qdiscs, err := allQdiscs(func(index uint32) bool { return byIndex[index] != nil })
	if err != nil {
		return err
	}
	for i := range qdiscs {
		d := byIndex[qdiscs[i].index]
		for _, place := range qdiscs[i].filterPlaces() {
			p.command = "tc filter show dev " + shell(d.name) + " " + place.where
			list, err := listFilters(d.index, place.parent)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			for _, f := range list {
				if f.kind == "bpf" && f.id != 0 {
					p.program(fmt.Sprintf("tc %s %s pref %d handle 0x%x", d.name, place.name, f.pref, f.handle), f.id, fields{
						"hook": "tc", "dev": d.name, "attach": place.direction, "parent": place.name,
						"priority": decimal(f.pref), "handle": fmt.Sprintf("0x%x", f.handle), "direct_action": bit(f.direct),
					})
				}
			}
		}
	}
	return nil
}

// queue adds the programs of a device that stand in a queue of their own, in
// the order that they run.
func (p *programs) queue(d *device, hook string, attachType uint32, direction string) error {
	p.source, p.command = "BPF_PROG_QUERY", "bpftool net show dev "+shell(d.name)
	if p.silent[attachType] {
		return nil
	}
	a, err := p.ask.at(d.index, attachType)
	switch {
	case errors.Is(err, unix.EINVAL): // before 6.6 (tcx), 6.7 (netkit), or built without
		p.silent[attachType] = true
		return nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EACCES) && hook == "netkit":
		// Only the primary end may be asked (netkit_dev_fetch of
		// drivers/net/netkit.c); it is in another namespace as a rule.
		return fmt.Errorf("%s: its programs are known to its other end only", d.name)
	case err != nil:
		return kernelnet.NeedsCap(err, capsQuery)
	}
	progs, links := slices.Clone(a.progs), slices.Clone(a.links)
	for i, id := range progs {
		f := fields{"hook": hook, "dev": d.name, "attach": direction, "order": strconv.Itoa(i)}
		if i < len(links) && links[i] != 0 {
			f["link"] = decimal(links[i])
		}
		p.program(fmt.Sprintf("%s %s %s %d", hook, d.name, direction, i), id, f)
	}
	return nil
}

// namespace adds the programs of the network namespace.
func (p *programs) namespace() error {
	p.source, p.command = "BPF_PROG_QUERY", "bpftool link show; bpftool net show"
	f, err := os.Open(p.path("/proc/thread-self/ns/net"))
	if err != nil {
		return err
	}
	defer f.Close()
	var ino unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &ino); err != nil {
		return fmt.Errorf("inode of the namespace: %w", err)
	}
	for _, t := range []struct {
		attachType uint32
		name       string
	}{{attachFlowDissector, "flow_dissector"}, {attachSkLookup, "sk_lookup"}} {
		a, err := p.ask.at(uint32(f.Fd()), t.attachType)
		if errors.Is(err, unix.EINVAL) { // before 5.9
			continue
		}
		if err != nil {
			return kernelnet.NeedsCap(err, capsQuery)
		}
		for i, id := range slices.Clone(a.progs) {
			f := fields{"hook": t.name, "order": strconv.Itoa(i)}
			p.setLink(f, func(l linkInfo) bool {
				return l.kind == linkNetNS && l.target == uint32(ino.Ino) && l.attachType == t.attachType && l.prog == id
			})
			p.program(fmt.Sprintf("%s %d", t.name, i), id, f)
		}
	}
	return nil
}
