//go:build root

package netlab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func newNS(t *testing.T) *Namespace {
	t.Helper()
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return ns
}

func TestNew(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	ns := newNS(t)
	var inside, ipv6 string
	err = ns.Do(func() error {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		b, rerr := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
		ipv6 = string(b)
		return errors.Join(err, rerr)
	})
	if err != nil {
		t.Fatal(err)
	}
	if inside == own || inside != fmt.Sprintf("net:[%d]", ns.Inode()) {
		t.Errorf("inside %s, outside %s, inode %d", inside, own, ns.Inode())
	}
	if ipv6 != "1\n" {
		t.Errorf("disable_ipv6 is %q", ipv6)
	}
	links, err := ns.Links().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		attrs := link.Attrs()
		if up := attrs.Flags&net.FlagUp != 0; up != (attrs.Name == "lo") {
			t.Errorf("device %s: up is %v", attrs.Name, up)
		}
	}
	if now, _ := os.Readlink("/proc/self/ns/net"); now != own {
		t.Errorf("the process moved from %s to %s", own, now)
	}
}

// Both ends reach each other without ARP, and a file of /proc/net belongs to
// its namespace wherever it is read.
func TestVeth(t *testing.T) {
	a, b := newNS(t), newNS(t)
	addrA, addrB := netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24")
	if err := Veth(End{a, "a0", addrA}, End{b, "b0", addrB}); err != nil {
		t.Fatal(err)
	}
	v6 := netip.MustParsePrefix("2001:db8::1/64")
	if err := Veth(End{a, "a1", v6}, End{b, "b1", v6}); err == nil {
		t.Error("a pair with IPv6 addresses gave no error")
	}
	listen := func(ns *Namespace, addr netip.Prefix) (conn *net.UDPConn) {
		err := ns.Do(func() (err error) {
			conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr(), 5000)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	from, to := listen(a, addrA), listen(b, addrB)
	if _, err := from.WriteTo([]byte("hello"), to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, _, err := to.ReadFrom(buf); err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("received %q, %v", buf[:n], err)
	}
	f, err := b.Open("dev")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil || !strings.Contains(string(text), "b0:") {
		t.Fatalf("/proc/net/dev: %s, %v", text, err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] == "b0:" && fields[2] != "1" { // packets received
			t.Errorf("not exactly one packet arrived: %s", line)
		}
	}
}

func TestSysctl(t *testing.T) {
	ns := newNS(t)
	const path = "/proc/sys/net/ipv4/ip_default_ttl"
	host, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Sysctl("net.ipv4.ip_default_ttl", "77"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Sysctl("net.ipv4.ip_default_ttl", "many"); err == nil {
		t.Error("a value that the kernel refuses gave no error")
	}
	var inside []byte
	if err := ns.Do(func() (err error) { inside, err = os.ReadFile(path); return err }); err != nil || string(inside) != "77\n" {
		t.Errorf("inside %q, %v", inside, err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(host) {
		t.Errorf("the host's setting went from %q to %q", host, after)
	}
}
