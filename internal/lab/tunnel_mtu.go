package lab

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tunnelMTU sends into a VXLAN device what is, with the outer headers around it,
// longer than the device below can send.
func tunnelMTU() Scenario {
	return Scenario{
		Name:  "tunnel-mtu",
		Title: "packets that fit into a VXLAN device, and not with its headers through the device below",
		build: buildTunnelMTU,
	}
}

const (
	// vxlanOverhead is what VXLAN adds: outer IPv4, UDP, VXLAN, inner Ethernet.
	vxlanOverhead = ipv4Len + udpLen + 8 + etherLen
	usualMTU      = 1500
)

func buildTunnelMTU(t *topology) (*rig, error) {
	const dev = "vxlan11"
	if err := t.addUnfragmented(dev); err != nil {
		return nil, err
	}
	if err := t.host.AddAddr(dev, wayOutNet); err != nil {
		return nil, err
	}
	if err := t.knownBehind(dev); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendProbes(t); err != nil {
		return nil, err
	}
	r.device = hostDevice
	r.repair = func() error {
		link, err := t.host.Link(dev)
		if err != nil {
			return err
		}
		if err := t.host.Links().LinkSetMTU(link, usualMTU-vxlanOverhead); err != nil {
			return fmt.Errorf("set MTU %d of %s: %w", usualMTU-vxlanOverhead, dev, err)
		}
		return nil
	}
	return r, r.countIn(t, "snmp", "Ip", "FragFails", "IpFragFails")
}

// sendProbes makes the generator a socket that ignores what the kernel has
// learned about the path, as one does that searches its MTU by itself (QUIC).
// Where the device is too small it is told, and sends less.
func (r *rig) sendProbes(t *topology) error {
	r.from = t.host
	f := flow(protoUDP, wayOutNet.Addr(), farNet.Addr())
	s, err := t.udpSender(t.host, f.Src, f.Dst)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); err != nil {
		return fmt.Errorf("have the generator ignore the MTU of the path: %w", err)
	}
	long := s.datagrams(usualMTU - ipv4Len - udpLen)
	short := s.datagrams(usualMTU - vxlanOverhead - ipv4Len - udpLen)
	r.emit = func() error {
		err := long()
		if errors.Is(err, unix.EMSGSIZE) {
			return errors.Join(errNotLost, short())
		}
		return err
	}
	return nil
}

// addUnfragmented does what this would for the host: ip link add DEV type vxlan
// id 11 remote PEER dstport 4789 df set; ip link set DEV mtu 1500 up. The library
// does not know df.
func (t *topology) addUnfragmented(dev string) error {
	const df, dfSet = 29, 1 // include/uapi/linux/if_link.h, IFLA_VXLAN_DF and VXLAN_DF_SET
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(dev)))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(usualMTU)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(vxlanVNI))
	data.AddRtAttr(nl.IFLA_VXLAN_GROUP, peerNet.Addr().AsSlice())
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, vxlanPort))
	data.AddRtAttr(df, []byte{dfSet})
	req.AddData(info)
	err := t.host.Do(func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("add VXLAN device %s: %w", dev, err)
	}
	return nil
}
