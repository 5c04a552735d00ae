//go:build root

package dropmon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// patience bounds every wait: machines under emulation are slow.
const patience = 30 * time.Second

// fresh connects to a monitor that does not run and has the configuration of a
// module just loaded, and leaves it so.
func fresh(t *testing.T, receiveBuffer int) *Conn {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	reset := func() {
		c, err := Dial(0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := errors.Join(c.Stop(true, true), c.SetConfig(Config{Queue: 1000})); err != nil {
			t.Error(err)
		}
	}
	reset()
	t.Cleanup(reset)
	return dial(t, receiveBuffer)
}

func dial(t *testing.T, receiveBuffer int) *Conn {
	t.Helper()
	c, err := Dial(receiveBuffer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustRun(t *testing.T, c *Conn, want bool) {
	t.Helper()
	if got, err := c.Running(); err != nil || got != want {
		t.Fatalf("monitor runs: %v, %v; want %v", got, err, want)
	}
}

// lose sends datagrams to a port that nobody listens at, in a namespace of its
// own. Each is one drop.
func lose(t *testing.T, n int, content string) {
	t.Helper()
	testkit.InNetNS(t, func(*netlab.Namespace) {
		s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range n {
			if _, err := s.WriteTo([]byte(content), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// receive hands alerts to f until it says that these are enough; it is an error
// if that takes too long.
func receive(t *testing.T, c *Conn, f func(Alert) (enough bool)) {
	t.Helper()
	enough := false
	check(t, c.SetReadDeadline(time.Now().Add(patience)))
	err := c.Receive(func(a Alert) {
		if a.Skipped != 0 {
			t.Errorf("%d attributes are not understood: %+v", a.Skipped, a)
		}
		if enough = enough || f(a); enough {
			check(t, c.SetReadDeadline(time.Now()))
		}
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) || !enough {
		t.Fatalf("not what was waited for: %v", err)
	}
	if n := c.Unusable(); n != 0 {
		t.Errorf("%d messages are unusable", n)
	}
}

func TestCommands(t *testing.T) {
	c := fresh(t, 0)
	for _, config := range []Config{{ModePacket, 64, 100}, {ModeSummary, 0, 1000}, {ModePacket, 1<<32 - 1, 1<<32 - 1}} {
		check(t, c.SetConfig(config))
		if got, err := c.Config(); err != nil || got != config {
			t.Errorf("%+v, %v; want %+v", got, err, config)
		}
	}
	if err := c.SetConfig(Config{Mode: 9}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("mode 9: %v", err)
	}
	for _, o := range [][2]bool{{true, false}, {false, true}, {true, true}} {
		check(t, c.Start(o[0], o[1]))
		mustRun(t, c, true)
		if err := c.Start(o[0], o[1]); !errors.Is(err, ErrRunning) {
			t.Errorf("started twice: %v", err)
		}
		if err := c.SetConfig(Config{}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "during monitoring") {
			t.Errorf("configured while it runs: %v", err)
		}
		check(t, c.Stop(o[0], o[1]))
		mustRun(t, c, false)
	}
	if c.Start(false, false) == nil || c.Stop(false, false) == nil {
		t.Error("neither software nor hardware is no error")
	}
	mustRun(t, c, false)
	if s, err := c.Stats(); err != nil || !s.Software.Known || !s.Hardware.Known {
		t.Errorf("%+v, %v", s, err)
	}
	dump, err := c.FamilyDump()
	check(t, err)
	found := 0
	for _, m := range dump {
		if int(binary.NativeEndian.Uint32(m)) != len(m) || binary.NativeEndian.Uint16(m[4:]) != unix.GENL_ID_CTRL {
			t.Errorf("message of the list: %x", m)
		}
		if bytes.Contains(m, []byte("NET_DM\x00")) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d of %d families are NET_DM", found, len(dump))
	}
}

// TestAlerts sees the same provoked drops in packet mode and in summary mode.
func TestAlerts(t *testing.T) {
	const mark = "whydrop dropmon test"
	c := fresh(t, 0)
	check(t, c.Join())
	check(t, c.SetConfig(Config{Mode: ModePacket, Truncate: 60, Queue: 1000}))
	check(t, c.Start(true, false))
	began := time.Now()
	lose(t, 3, mark)
	var packets []*Packet
	receive(t, c, func(a Alert) bool {
		if p := a.Packet; p != nil && bytes.Contains(p.Payload, []byte(mark[:18])) {
			packets = append(packets, p)
		}
		return len(packets) == 3
	})
	for _, p := range packets {
		const headers = 14 + 20 + 8
		if p.Origin != OriginSoftware || p.InIndex != 1 || p.Protocol != unix.ETH_P_IP || p.PC != packets[0].PC || p.PC>>63 == 0 ||
			p.OriginalLength != headers+uint32(len(mark)) || len(p.Payload) != 60 || !strings.Contains(p.Symbol, "udp") {
			t.Errorf("%+v", p)
		}
		if d := p.Time.Sub(began); d < -time.Second || d > patience {
			t.Errorf("time %v, begun %v", p.Time, began)
		}
	}
	t.Run("reason", func(t *testing.T) {
		switch packets[0].Reason {
		case "NO_SOCKET":
		case "":
			testkit.SkipBefore(t, "5.18", "the reason in alerts", errors.New("no attribute"))
		default:
			t.Errorf("reason %q", packets[0].Reason)
		}
	})
	check(t, c.Stop(true, false))

	const drops = 1000
	check(t, c.SetConfig(Config{Mode: ModeSummary, Queue: 1000}))
	check(t, c.Start(true, false))
	lose(t, drops, mark)
	var sum uint32
	receive(t, c, func(a Alert) bool {
		for _, p := range a.Points {
			if p.PC == packets[0].PC {
				sum += p.Drops
			}
		}
		return sum >= drops
	})
	if sum != drops {
		t.Errorf("%d drops at %s in the summaries, %d were provoked", sum, packets[0].Symbol, drops)
	}
	if n := c.Lost(); n != 0 {
		t.Errorf("%d messages lost", n)
	}
	check(t, c.Stop(true, false))
	mustRun(t, c, false)
}

// TestTailDrops: with a queue for no packet each drop is one that the monitor
// did not report and counts.
func TestTailDrops(t *testing.T) {
	c := fresh(t, 0)
	check(t, c.SetConfig(Config{Mode: ModePacket}))
	check(t, c.Start(true, false))
	before, err := c.Stats()
	check(t, err)
	const drops = 500
	lose(t, drops, "x")
	after, err := c.Stats()
	check(t, err)
	if n := after.Software.Dropped - before.Software.Dropped; n < drops || n > drops+50 {
		t.Errorf("%d packets found the queue full, %d were provoked", n, drops)
	}
}

// TestLost: what a small buffer has no room for is counted, message by message.
func TestLost(t *testing.T) {
	const drops = 300
	const mark = "whydrop lost"
	c := fresh(t, 1)
	check(t, c.Join())
	check(t, c.SetConfig(Config{Mode: ModePacket, Queue: 1000}))
	check(t, c.Start(true, false))
	lose(t, drops, mark)
	// Nobody reads until all of them are sent.
	deadline := time.Now().Add(patience)
	for last := uint64(0); last == 0 || last != c.Lost(); time.Sleep(300 * time.Millisecond) {
		if last = c.Lost(); time.Now().After(deadline) {
			t.Fatalf("%d lost", last)
		}
	}
	received := uint64(0)
	check(t, c.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
	err := c.Receive(func(a Alert) { received++ })
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the loss ended it: %v", err)
	}
	lost := c.Lost()
	if received == 0 || lost == 0 || received+lost < drops || received+lost > drops+50 {
		t.Errorf("%d received, %d lost, %d provoked", received, lost, drops)
	}
	// It goes on after the loss.
	lose(t, 1, mark)
	receive(t, c, func(a Alert) bool { return a.Packet != nil && bytes.Contains(a.Packet.Payload, []byte(mark)) })
	check(t, c.Close())
	if n := c.Lost(); n < lost {
		t.Errorf("after closing %d lost, before %d", n, lost)
	}
}

// TestRaw: the whole message is what the decoder gets.
func TestRaw(t *testing.T) {
	const mark = "whydrop raw"
	c := fresh(t, 0)
	check(t, c.Join())
	check(t, c.SetConfig(Config{Mode: ModePacket, Queue: 1000}))
	check(t, c.Start(true, false))
	lose(t, 1, mark)
	done := errors.New("done")
	check(t, c.SetReadDeadline(time.Now().Add(patience)))
	err := c.ReceiveRaw(func(m []byte) error {
		if int(binary.NativeEndian.Uint32(m)) != len(m) || binary.NativeEndian.Uint16(m[4:]) != c.id {
			t.Errorf("%x", m)
		}
		a, err := Decode(m[unix.SizeofNlMsghdr:])
		check(t, err)
		if a.Packet != nil && bytes.Contains(a.Packet.Payload, []byte(mark)) {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Error(err)
	}
	check(t, c.Close())
	if err := c.Receive(func(Alert) {}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	check(t, c.Close())
}

// TestOtherNamespace holds on every kernel: the family is never there.
func TestOtherNamespace(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		_, err := Dial(0)
		for name, err := range map[string]error{
			"dial": err, "open": second(Open(Options{Software: true, LoadModule: true})),
			"load": LoadModule(), "recover": second(Recover()),
		} {
			if !errors.Is(err, ErrNotInitialNetNS) || !strings.Contains(fmt.Sprint(err), "nsenter") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestNoCapabilities asks without any, on a thread that has none.
func TestNoCapabilities(t *testing.T) {
	c := fresh(t, 0)
	type answer struct {
		what string
		err  error
	}
	answers := make(chan answer, 10)
	go func() {
		defer close(answers)
		runtime.LockOSThread() // and the thread ends with it
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			answers <- answer{"capset", err}
			return
		}
		poor, err := Dial(0)
		if err != nil {
			answers <- answer{"dial", err}
			return
		}
		defer poor.Close()
		if _, err := poor.Config(); err != nil {
			answers <- answer{"config needs no rights", err}
		}
		answers <- answer{"start", poor.Start(true, false)}
		answers <- answer{"configure", poor.SetConfig(Config{})}
		answers <- answer{"open", second(openMonitor(Options{Software: true}, t.TempDir()))}
		_, err = recoverMonitor(t.TempDir())
		answers <- answer{"recover", err}
	}()
	for a := range answers {
		if !errors.Is(a.err, os.ErrPermission) || !strings.Contains(a.err.Error(), "CAP_") {
			t.Errorf("%s: %v", a.what, a.err)
		}
	}
	mustRun(t, c, false)
}
