//go:build root

package fact

import (
	"net"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// A group that a program joins is there with its device, and gone with it.
func TestGroupsOfAProgram(t *testing.T) {
	group := net.IPv4(239, 192, 7, 7)
	testkit.InNetNS(t, func(*netlab.Namespace) {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.ListenMulticastUDP("udp4", lo, &net.UDPAddr{IP: group, Port: 7777})
		if err != nil {
			t.Fatal(err)
		}
		if f := named(t, facts(t, "groups", ""), group.String()+" lo"); f.Value != "1" || f.Fields["dev"] != "lo" {
			t.Errorf("%+v", f)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		for _, f := range facts(t, "groups", "") {
			if f.Fields["group"] == group.String() {
				t.Errorf("after the program has closed its socket: %+v", f)
			}
		}
	})
}
