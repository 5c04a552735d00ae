package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// qdiscNetem sends through a queue that loses packets on purpose, as somebody's
// test left it behind.
func qdiscNetem() Scenario {
	return Scenario{
		Name:  "qdisc-netem",
		Title: "packets that netem, a queue for tests, loses on purpose",
		build: buildNetem,
	}
}

func buildNetem(t *topology) (*rig, error) {
	const percent = 100
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
		return nil, err
	}
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	err = t.host.Links().QdiscAdd(netlink.NewNetem(
		netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		netlink.NetemQdiscAttrs{Loss: percent},
	))
	if err != nil {
		return nil, fmt.Errorf("add qdisc netem to %s: %w", hostDevice, err)
	}
	r.countQdisc(t, link, "netem")
	read, err := t.sink(t.peer, dstPort)
	if err != nil {
		return nil, err
	}
	r.prove = func(_ context.Context, n uint64) (uint64, error) { return r.unread(n, read) }
	return r, nil
}

// unread sends n packets and returns how many of them the receiver did not read.
// The cure removes what counts the loss.
func (r *rig) unread(n uint64, read counter) (uint64, error) {
	before, err := read()
	if err != nil {
		return 0, err
	}
	err = r.from.Do(func() error {
		for range n {
			if err := r.emit(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	late := await(read, before+n, r.patience)
	after, err := read()
	if err != nil {
		return 0, errors.Join(late, err)
	}
	return n - (after - before), nil
}
