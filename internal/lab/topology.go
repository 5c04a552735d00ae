package lab

import (
	"errors"
	"net/netip"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// The network of every scenario: the peer is a neighbour of the host, and the
// host loses packets. Some scenarios have the far namespace behind the host.
// The addresses are those of RFC 5737 for documentation.
const (
	hostDevice = "lab0"
	peerDevice = "peer0"
	wayOut     = "lab1" // the host's device to the far namespace
	farDevice  = "far0"

	srcPort = 40000
	dstPort = 7777

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

var (
	hostNet = netip.MustParsePrefix("192.0.2.1/24")
	peerNet = netip.MustParsePrefix("192.0.2.2/24")

	wayOutNet = netip.MustParsePrefix("203.0.113.1/24")
	farNet    = netip.MustParsePrefix("203.0.113.2/24")

	// elsewhere is an address that no namespace has or knows a way to.
	elsewhere = netip.MustParseAddr("198.51.100.9")
)

// flow is a flow with the ports that the lab uses, where proto has ports.
func flow(proto uint8, src, dst netip.Addr) record.Flow {
	f := record.Flow{Proto: proto, Src: netip.AddrPortFrom(src, 0), Dst: netip.AddrPortFrom(dst, 0)}
	if proto == protoUDP || proto == protoTCP {
		f.Src = netip.AddrPortFrom(src, srcPort)
		f.Dst = netip.AddrPortFrom(dst, dstPort)
	}
	return f
}

// topology is the namespaces joined by veth pairs, and what was opened in
// them.
type topology struct {
	host, peer *netlab.Namespace
	far        *netlab.Namespace // nil without addFar
	closers    []func() error    // run in reverse order
}

func newTopology() (*topology, error) {
	t := new(topology)
	if err := t.build(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *topology) build() (err error) {
	if t.host, err = t.namespace(); err != nil {
		return err
	}
	if t.peer, err = t.namespace(); err != nil {
		return err
	}
	// A new namespace may start with the settings of the host that it is made
	// on (net.core.devconf_inherit_init_net), so nothing is left to them.
	for _, dev := range []string{"all", "default"} {
		for _, name := range []string{"forwarding", "rp_filter", "accept_local", "route_localnet", "log_martians"} {
			if err := t.host.Sysctl("net.ipv4.conf."+dev+"."+name, "0"); err != nil {
				return err
			}
		}
	}
	return netlab.Veth(
		netlab.End{NS: t.host, Name: hostDevice, Addr: hostNet},
		netlab.End{NS: t.peer, Name: peerDevice, Addr: peerNet},
	)
}

// namespace makes a namespace that goes away with the topology.
func (t *topology) namespace() (*netlab.Namespace, error) {
	ns, err := netlab.New()
	if err != nil {
		return nil, err
	}
	t.onClose(ns.Close)
	return ns, nil
}

// addFar puts the far namespace behind the host, which forwards from now on.
func (t *topology) addFar() (err error) {
	if t.far, err = t.namespace(); err != nil {
		return err
	}
	if err := t.forward(); err != nil {
		return err
	}
	return netlab.Veth(
		netlab.End{NS: t.host, Name: wayOut, Addr: wayOutNet},
		netlab.End{NS: t.far, Name: farDevice, Addr: farNet},
	)
}

// forward makes a router of the host.
func (t *topology) forward() error { return t.host.Sysctl("net.ipv4.ip_forward", "1") }

// onClose adds a function that close will call.
func (t *topology) onClose(f func() error) { t.closers = append(t.closers, f) }

func (t *topology) close() error {
	var errs []error
	for i := len(t.closers) - 1; i >= 0; i-- {
		errs = append(errs, t.closers[i]())
	}
	t.closers = nil
	return errors.Join(errs...)
}
