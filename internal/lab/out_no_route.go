package lab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// outNoRoute has an application of the host send to where there is no route.
// The send fails before there is a packet, so there is no drop event.
func outNoRoute() Scenario {
	return Scenario{
		Name:   "out-no-route",
		Title:  "datagrams of an application to a network that the host has no route to (ENETUNREACH)",
		Silent: true,
		build:  buildOutNoRoute,
	}
}

func buildOutNoRoute(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), elsewhere); err != nil {
		return nil, err
	}
	r.emit = failing(r.emit, unix.ENETUNREACH)
	r.repair = t.wayElsewhere
	return r, r.countIn(t, "snmp", "Ip", "OutNoRoutes", "IpOutNoRoutes")
}

// failing is a generator whose every call fails in that way; one that does not
// is errNotLost.
func failing(emit func() error, want unix.Errno) func() error {
	return func() error {
		err := emit()
		switch {
		case errors.Is(err, want):
			return nil
		case err == nil:
			return fmt.Errorf("send: it did not fail with %w: %w", want, errNotLost)
		}
		return err
	}
}
