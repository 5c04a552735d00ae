package lab

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// policy does what this would in ns: ip xfrm policy add src SRC dst DST dir DIR,
// and "action block", or "tmpl proto esp mode transport".
func (t *topology) policy(ns *netlab.Namespace, src, dst netip.Addr, dir netlink.Dir, block bool) error {
	p := xfrmPolicy(src, dst, dir, block)
	if err := ns.Do(func() error { return netlink.XfrmPolicyAdd(p) }); err != nil {
		return fmt.Errorf("add IPsec policy %s from %s to %s: %w", dir, src, dst, err)
	}
	return nil
}

// forgive takes that policy away.
func (t *topology) forgive(ns *netlab.Namespace, src, dst netip.Addr, dir netlink.Dir) error {
	p := xfrmPolicy(src, dst, dir, true)
	if err := ns.Do(func() error { return netlink.XfrmPolicyDel(p) }); err != nil {
		return fmt.Errorf("delete IPsec policy %s from %s to %s: %w", dir, src, dst, err)
	}
	return nil
}

func xfrmPolicy(src, dst netip.Addr, dir netlink.Dir, block bool) *netlink.XfrmPolicy {
	p := &netlink.XfrmPolicy{Src: single(src), Dst: single(dst), Dir: dir}
	if block {
		p.Action = netlink.XFRM_POLICY_BLOCK
		return p
	}
	p.Tmpls = []netlink.XfrmPolicyTmpl{{Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TRANSPORT}}
	return p
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// countXfrm makes a value of /proc/net/xfrm_stat of the host the loss.
func (r *rig) countXfrm(t *topology, field string) error {
	f, err := t.host.Open("xfrm_stat")
	if err != nil {
		return fmt.Errorf("open counters: %w", err)
	}
	t.onClose(f.Close)
	r.count(func() (uint64, error) { return xfrmCounter(f, field) }, field, "/proc/net/xfrm_stat", "cat /proc/net/xfrm_stat")
	return nil
}

// xfrmCounter reads a value of an open /proc/net/xfrm_stat: a name and a number
// a line (net/xfrm/xfrm_proc.c).
func xfrmCounter(f *os.File, field string) (uint64, error) {
	// It is below 2 KiB on every kernel up to 7.2.
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<16))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", field, err)
	}
	return parsePairs(text, field)
}

func parsePairs(text []byte, field string) (uint64, error) {
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) != 2 || string(words[0]) != field {
			continue
		}
		v, err := strconv.ParseUint(string(words[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("counter %s: %w", field, err)
		}
		return v, nil
	}
	return 0, fmt.Errorf("counter %s: %w", field, errNoCounter)
}
