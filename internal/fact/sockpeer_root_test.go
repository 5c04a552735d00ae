//go:build root

package fact

import (
	"net"
	"strconv"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// A UDP socket has a peer where it is connected, and none where it is not,
// whoever told of it.
func TestUDPPeer(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		quiet, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(t, err)
		defer quiet.Close()
		conn, err := net.DialUDP("udp4", nil, quiet.LocalAddr().(*net.UDPAddr))
		must(t, err)
		defer conn.Close()
		all := facts(t, "udp-sockets", "")
		c := named(t, all, conn.LocalAddr().String())
		port := strconv.Itoa(quiet.LocalAddr().(*net.UDPAddr).Port)
		if c.Fields["peer_addr"] != "127.0.0.1" || c.Fields["peer_port"] != port {
			t.Errorf("connected to port %s: %+v", port, c)
		}
		if q := named(t, all, quiet.LocalAddr().String()); q.Fields["peer_addr"] != "" || q.Fields["peer_port"] != "" {
			t.Errorf("not connected: %+v", q)
		}
		found := false
		must(t, (&Reader{}).procSockets("udp", func(s *socket) {
			found = found || s.local.String() == conn.LocalAddr().String() && s.peer.String() == quiet.LocalAddr().String()
		}))
		if !found {
			t.Errorf("/proc/net/udp does not tell that %s is connected to %s", conn.LocalAddr(), quiet.LocalAddr())
		}
	})
}
