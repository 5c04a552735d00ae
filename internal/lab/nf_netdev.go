package lab

import (
	"net/netip"

	"github.com/google/nftables"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// nfNetdevIngress has a chain at the device itself drop what comes in, before
// IP sees it.
func nfNetdevIngress() Scenario {
	return Scenario{
		Name:  "nf-netdev-ingress",
		Title: "packets that an nftables chain at the device's ingress (family netdev) drops",
		build: func(t *topology) (*rig, error) {
			r, err := t.dropAtDevice("ingress", nftables.ChainHookIngress, t.peer, peerNet.Addr(), hostNet.Addr())
			if err != nil {
				return nil, err
			}
			_, err = t.sink(t.host, dstPort)
			return r, err
		},
	}
}

// nfNetdevEgress has a chain at the device drop what the host sends. The
// application's sends succeed, and yet UDP counts them as failed for want of
// memory (net/core/dev.c, nf_hook_egress returns NET_XMIT_DROP).
func nfNetdevEgress() Scenario {
	return Scenario{
		Name:  "nf-netdev-egress",
		Title: "packets of the host that an nftables chain at the device's egress (family netdev) drops",
		build: func(t *topology) (*rig, error) {
			return t.dropAtDevice("egress", nftables.ChainHookEgress, t.host, hostNet.Addr(), peerNet.Addr())
		},
	}
}

// dropAtDevice makes the rule "udp dport 7777 counter drop" in a chain of the
// host's device, and has ns send what it drops.
func (t *topology) dropAtDevice(name string, hook *nftables.ChainHook, ns *netlab.Namespace, src, dst netip.Addr) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, ns, src, dst); err != nil {
		return nil, err
	}
	c, err := t.chain(nftables.TableFamilyNetdev, nftables.Chain{
		Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook,
		Priority: nftables.ChainPriorityFilter, Device: hostDevice,
	})
	if err != nil {
		return nil, err
	}
	return r, r.dropRule(c, "netdev", toPort(protoUDP, dstPort)...)
}
