package lab

import (
	"net/netip"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// secondDevice is another device of the host, joined to secondPeer of the peer.
const (
	secondDevice = "lab1"
	secondPeer   = "peer1"
)

// addSecond joins host and peer by a second pair, with a network of its own.
func (t *topology) addSecond() error {
	return t.addSecondAs(netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("203.0.113.2/24"))
}

// addSecondAs is addSecond with those addresses of the host and of the peer.
func (t *topology) addSecondAs(host, peer netip.Prefix) error {
	return netlab.Veth(
		netlab.End{NS: t.host, Name: secondDevice, Addr: host},
		netlab.End{NS: t.peer, Name: secondPeer, Addr: peer},
	)
}
