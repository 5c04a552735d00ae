package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// neighTableOverflow has the host send to more neighbours than the table of all
// namespaces may have. It changes settings of the whole machine.
func neighTableOverflow() Scenario {
	return Scenario{
		Name:  "neigh-table-overflow",
		Title: "datagrams to neighbours that the full neighbour table has no room for",
		build: buildNeighOverflow,
	}
}

// crowd is a network of the host with many neighbours, none of which is there.
var crowd = netip.MustParsePrefix("198.18.0.1/15")

func buildNeighOverflow(t *topology) (*rig, error) {
	// Entries that wait for an answer are not given up to make room
	// (net/core/neighbour.c, neigh_forced_gc), and these wait long.
	if err := t.host.Sysctl("net.ipv4.neigh."+hostDevice+".retrans_time_ms", "600000"); err != nil {
		return nil, err
	}
	if err := t.host.AddAddr(hostDevice, crowd); err != nil {
		return nil, err
	}
	fd, err := t.open(t.host, unix.AF_INET, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(crowd.Addr(), srcPort))); err != nil {
		return nil, fmt.Errorf("bind generator's socket to %s: %w", crowd.Addr(), err)
	}
	// Without it the kernel keeps the error to itself (net/ipv4/udp.c,
	// udp_send_skb).
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1); err != nil {
		return nil, fmt.Errorf("set IP_RECVERR: %w", err)
	}
	if err := t.smallNeighTable(); err != nil {
		return nil, err
	}
	send := toNext(fd)
	if err := t.host.Do(func() error { return fill(send) }); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.from = t.host
	r.emit = func() error {
		switch err := send(); {
		case err == nil:
			return errNotLost
		case isFull(err):
			return nil
		default:
			return err
		}
	}
	return r, r.countIn(t, "snmp", "Ip", "OutDiscards", "IpOutDiscards")
}

// fill sends until the neighbour table is full.
func fill(send func() error) error {
	const most = 4096 // far more than it has room for
	for range most {
		switch err := send(); {
		case isFull(err):
			return nil
		case err != nil:
			return err
		}
	}
	return fmt.Errorf("the neighbour table took %d entries and is not full", most)
}

// isFull says whether the kernel found no room for a neighbour: 5.10 answers
// EINVAL, 6.1 and later ENOBUFS (net/ipv4/ip_output.c, ip_finish_output2).
func isFull(err error) bool {
	return errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINVAL)
}

// toNext returns a function that sends a datagram to a neighbour that nobody
// was asked for before.
func toNext(fd int) func() error {
	first := crowd.Addr().As4()
	next := binary.BigEndian.Uint32(first[:])
	data := make([]byte, payload)
	return func() error {
		next++
		var to [4]byte
		binary.BigEndian.PutUint32(to[:], next)
		err := sender{fd, sockaddr(netip.AddrPortFrom(netip.AddrFrom4(to), dstPort))}.send(data)
		if err != nil {
			return fmt.Errorf("send datagram: %w", err)
		}
		return nil
	}
}

// smallNeighTable sets the limits of the neighbour table, which all namespaces
// share and only the first one can set, so low that little fills it. What they
// were comes back when the topology is closed.
func (t *topology) smallNeighTable() error {
	for _, s := range [...][2]string{{"gc_thresh1", "8"}, {"gc_thresh2", "16"}, {"gc_thresh3", "32"}} {
		path := "/proc/sys/net/ipv4/neigh/default/" + s[0]
		old, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read limit of the neighbour table: %w", err)
		}
		t.onClose(func() error { return writeLimit(path, string(old)) })
		if err := writeLimit(path, s[1]); err != nil {
			return err
		}
	}
	return nil
}

func writeLimit(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set limit of the neighbour table: %w", err)
	}
	return nil
}
