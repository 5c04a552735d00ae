//go:build root

package observe

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// socketInode is the number by which /proc/PID/fd shows a socket.
func socketInode(t *testing.T, c *net.UDPConn) uint64 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if cerr := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return st.Ino
}

// TestTrapSocketOfTheSender: a packet that is dropped on its way out has its
// socket in skb->sk alone. The tracepoint's rx_sk is NULL there, and to look
// no further where a kernel has that argument would lose the sender.
func TestTrapSocketOfTheSender(t *testing.T) {
	t.Run("qdisc", func(t *testing.T) {
		host := namespace(t)
		noCarrier(t, host)
		sender(t, host, "198.51.100.9:9", "QDISC_DROP", 5)
	})
	t.Run("neighbour", func(t *testing.T) {
		host, _ := pair(t, "host0")
		// Room for one packet that waits for the address (net/core/neighbour.c,
		// __neigh_event_send): each further one pushes out the one before.
		if err := host.Sysctl("net.ipv4.neigh.host0.unres_qlen_bytes", "0"); err != nil {
			t.Fatal(err)
		}
		sender(t, host, "192.0.2.77:9", "NEIGH_QUEUEFULL", 5)
	})
}

// sender sends from a socket until so many packets are lost, and looks for it
// in all their samples.
func sender(t *testing.T, host *netlab.Namespace, to, reason string, drops uint64) {
	t.Helper()
	var c *net.UDPConn
	err := host.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := record.Socket{Inode: socketInode(t, c), From: "skb", Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP}
	packets := drops
	if reason == "NEIGH_QUEUEFULL" {
		packets++ // the one that stays in the queue
	}
	o := watched(t, func() {
		for range packets {
			_, err := c.WriteToUDPAddrPort([]byte("hello"), netip.MustParseAddrPort(to))
			if err != nil && !strings.Contains(err.Error(), "no buffer space") {
				t.Error(err)
			}
		}
	}, host)
	if n, _ := only(o, reason); n != drops {
		t.Errorf("%d drops, want %d: %+v", n, drops, o.Counts)
	}
	samples := uint64(0)
	for _, d := range o.Samples {
		if !isFor(d.Key, reason) {
			continue
		}
		samples++
		if d.Socket == nil {
			t.Errorf("a packet of the socket has none: %+v", d)
			continue
		}
		got := *d.Socket
		got.Cookie = 0 // the kernel gives one when somebody asks
		if got != want {
			t.Errorf("socket %+v, want %+v", got, want)
		}
	}
	if samples != drops {
		t.Errorf("%d samples, want one of each drop: %+v", samples, o.Samples)
	}
}
