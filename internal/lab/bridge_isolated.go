package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// bridgeIsolated sends from one isolated port of a bridge to another.
func bridgeIsolated() Scenario {
	return Scenario{
		Name:  "bridge-isolated",
		Title: "frames from one port of a bridge to another where both are isolated",
		build: func(t *topology) (*rig, error) {
			b, err := t.addBridged()
			if err != nil {
				return nil, err
			}
			for _, port := range []netlink.Link{b.in, b.out} {
				if err := t.host.Links().LinkSetIsolated(port, true); err != nil {
					return nil, fmt.Errorf("isolate port %s: %w", port.Attrs().Name, err)
				}
			}
			return b.rig(b.frame())
		},
	}
}
