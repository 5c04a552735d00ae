//go:build root

package lab

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
)

func testTopology(t *testing.T) *topology {
	t.Helper()
	testkit.NeedRoot(t)
	top, err := newTopology()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := top.close(); err != nil {
			t.Error(err)
		}
	})
	return top
}

// A connection that is not refused is not a loss.
func TestConnectAccepted(t *testing.T) {
	top := testTopology(t)
	r := newRig(top)
	r.connectTCP(peerNet.Addr(), hostNet.Addr())
	if err := top.peer.Do(r.emit); err != nil {
		t.Errorf("to a closed port: %v", err)
	}
	fd, err := top.open(top.host, unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, sockaddr(r.flow.Dst)), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	if err := top.peer.Do(r.emit); err == nil || !strings.Contains(err.Error(), "not refused") {
		t.Errorf("to a listener: %v", err)
	}
}

// What may pass is not counted as vanished, and what is forwarded comes out
// behind the host.
func TestVanished(t *testing.T) {
	top := testTopology(t)
	if err := top.addFar(); err != nil {
		t.Fatal(err)
	}
	r := newRig(top)
	if err := r.countVanished(top); err != nil {
		t.Fatal(err)
	}
	handled, err := top.table("snmp", "Ip", "InReceives")
	if err != nil {
		t.Fatal(err)
	}
	const n = 5
	for _, dst := range []struct {
		addr string
		want uint64
	}{{"192.0.2.1", 0}, {"203.0.113.2", 0}, {"127.0.0.1", n}} {
		before, err := r.lost()
		if err != nil {
			t.Fatal(err)
		}
		f := flow(protoUDP, peerNet.Addr(), netip.MustParseAddr(dst.addr))
		if err := r.sendPacket(top, newPacket(f)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.send(t.Context(), n, r.emit, handled); err != nil {
			t.Fatal(err)
		}
		if err := r.settle(); err != nil {
			t.Fatal(err)
		}
		after, err := r.lost()
		if err != nil || after-before != dst.want {
			t.Errorf("to %s: %d vanished, want %d; %v", dst.addr, after-before, dst.want, err)
		}
	}
}

func TestNoClsact(t *testing.T) {
	top := testTopology(t)
	link, err := top.host.Link(hostDevice)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := dropsOfClsact(top.host, link)(); !errors.Is(err, errNoCounter) {
		t.Errorf("%d, %v", v, err)
	}
}
