package observe

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/probe/xdpexception"
	"github.com/whydrop/whydrop/record"
)

func TestXDPNames(t *testing.T) {
	x := &xdp{actions: []string{"XDP_ABORTED", "XDP_DROP"}}
	at := xdpexception.Key{NetNS: 4026531840, Ifindex: 3, Prog: 41}
	for _, c := range []struct {
		action, errno uint32
		name, part    string
	}{
		{0, 0, "xdp_exception.XDP_ABORTED", "program 41"},
		{1, 0, "xdp_exception.XDP_DROP", "program 41"},
		{2, 0, "xdp_exception.invalid", "program 41"},
		{0, uint32(unix.ENETDOWN), "xdp_redirect_err.err", "program 41, ENETDOWN"},
		{0, 4095, "xdp_redirect_err.err", "program 41"},
	} {
		k := at
		k.Action, k.Errno = c.action, c.errno
		total := xdpCounter{name: c.name, netns: at.NetNS, device: record.Device{Index: 3, Name: "eth0"}}
		part := total
		part.object = c.part
		if got, want := x.names(&xdpexception.Count{Key: k, Device: "eth0"}), [2]xdpCounter{total, part}; got != want {
			t.Errorf("action %d, error %d: %+v, want %+v", c.action, c.errno, got, want)
		}
	}
}

// A record that begins later begins with what had been counted by then.
func TestXDPRolls(t *testing.T) {
	k := xdpCounter{name: "xdp_exception.XDP_ABORTED", netns: 7}
	x := &xdp{after: map[xdpCounter]uint64{k: 5}}
	if x.roll(); x.before[k] != 5 {
		t.Errorf("before %v", x.before)
	}
}
