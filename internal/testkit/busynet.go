package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// Busier is what a busy host has besides: a bulk transfer over TCP into a
// network that loses a part of it now and then, through a rate limit of the host
// that delays and never drops, and containers that come, talk and go.
type Busier struct {
	busy *Busy
	// far is the network that loses packets. Nobody watches it.
	far      *netlab.Namespace
	listener net.Listener

	containers, sent atomic.Uint64
}

const (
	uplinkDevice = "busy2"
	farDevice    = "busy3"
	// uplinkRate is in bytes a second.
	uplinkRate = 2 << 20
	// uplinkRoom is what may wait, in bytes: more than a TCP socket sends at
	// once (tcp_wmem, 4 MiB by default).
	uplinkRoom = 16 << 20
	// lossOneIn: the network loses one packet of so many.
	lossOneIn = 200
	// containerEvery is the time between two containers.
	containerEvery = time.Second
)

var (
	uplinkNet = netip.MustParsePrefix("203.0.113.1/24")
	farNet    = netip.MustParsePrefix("203.0.113.2/24")
	podHost   = netip.MustParsePrefix("192.0.2.1/24")
	podNet    = netip.MustParsePrefix("192.0.2.2/24")
)

// NewBusier adds that to a busy host. It is gone when the test ends.
func NewBusier(t testing.TB, busy *Busy) *Busier {
	t.Helper()
	b := &Busier{busy: busy}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.build(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *Busier) build() (err error) {
	if b.far, err = netlab.New(); err != nil {
		return err
	}
	err = netlab.Veth(
		netlab.End{NS: b.busy.Host, Name: uplinkDevice, Addr: uplinkNet},
		netlab.End{NS: b.far, Name: farDevice, Addr: farNet},
	)
	if err != nil {
		return err
	}
	if err := b.shape(); err != nil {
		return err
	}
	if err := b.loseSome(); err != nil {
		return err
	}
	return b.far.Do(func() error {
		b.listener, err = net.Listen("tcp4", netip.AddrPortFrom(farNet.Addr(), 5001).String())
		return err
	})
}

func (b *Busier) close() error {
	var errs []error
	if b.listener != nil {
		errs = append(errs, b.listener.Close())
	}
	if b.far != nil {
		errs = append(errs, b.far.Close())
	}
	return errors.Join(errs...)
}

// shape gives the host's way out a rate limit with much room.
func (b *Busier) shape() error {
	link, err := b.busy.Host.Link(uplinkDevice)
	if err != nil {
		return err
	}
	const burst = 128 << 10 // more than a segment that is still whole
	err = b.busy.Host.Links().QdiscAdd(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       uplinkRate, Limit: uplinkRoom, Buffer: netlink.Xmittime(uplinkRate, burst),
	})
	if err != nil {
		return fmt.Errorf("add qdisc tbf to %s: %w", uplinkDevice, err)
	}
	return nil
}

// loseSome has a filter in the network drop packets by chance.
func (b *Busier) loseSome() error {
	link, err := b.far.Link(farDevice)
	if err != nil {
		return err
	}
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	if err := b.far.Links().QdiscAdd(&netlink.Clsact{QdiscAttrs: attrs}); err != nil {
		return fmt.Errorf("add qdisc clsact to %s: %w", farDevice, err)
	}
	const ok, shot = 0, 2 // include/uapi/linux/pkt_cls.h, TC_ACT_OK and TC_ACT_SHOT
	_ = rlimit.RemoveMemlock()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "busy", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.FnGetPrandomU32.Call(),
		asm.Mod.Imm32(asm.R0, lossOneIn),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Mov.Imm(asm.R0, ok),
		asm.JNE.Imm32(asm.R1, 0, "end"),
		asm.Mov.Imm(asm.R0, shot),
		asm.Return().WithSymbol("end"),
	}})
	if err != nil {
		return fmt.Errorf("load the program that loses packets: %w", err)
	}
	defer prog.Close() // the filter keeps it
	err = b.far.Links().FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: "busy", DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add bpf filter to %s: %w", farDevice, err)
	}
	return nil
}

// Run keeps that up until ctx is done.
func (b *Busier) Run(ctx context.Context) error {
	ended := make(chan error, 2)
	go b.receive()
	go func() { ended <- b.transfer(ctx) }()
	go func() { ended <- b.comeAndGo(ctx) }()
	return errors.Join(<-ended, <-ended)
}

// receive reads what is transferred and throws it away.
func (b *Busier) receive() {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
	}
}

// transfer sends as fast as the rate limit lets it.
func (b *Busier) transfer(ctx context.Context) error {
	var c net.Conn
	err := b.busy.Host.Do(func() (err error) {
		c, err = net.DialTimeout("tcp4", b.listener.Addr().String(), 30*time.Second)
		return err
	})
	if err != nil {
		return fmt.Errorf("bulk transfer: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Now()) })()
	block := make([]byte, 64<<10)
	for {
		n, err := c.Write(block)
		b.sent.Add(uint64(n))
		if ctx.Err() != nil {
			return c.Close()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("bulk transfer: %w", err), c.Close())
		}
	}
}

// comeAndGo has containers come, talk to the host and go.
func (b *Busier) comeAndGo(ctx context.Context) error {
	tick := time.NewTicker(containerEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := b.container(); err != nil {
			return fmt.Errorf("container %d: %w", b.containers.Load(), err)
		}
		b.containers.Add(1)
	}
}

// container makes one, has it send and receive, and removes it.
func (b *Busier) container() (err error) {
	pod, err := netlab.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()
	n := strconv.FormatUint(b.containers.Load(), 10)
	name := "pod" + n
	if err := netlab.Veth(netlab.End{NS: b.busy.Host, Name: name, Addr: podHost}, netlab.End{NS: pod, Name: "eth0", Addr: podNet}); err != nil {
		return err
	}
	// The device goes with the namespace, a moment later, and the next one has
	// the same addresses.
	defer func() { err = errors.Join(err, b.removeDevice(name)) }()
	return b.talkTo(pod)
}

func (b *Busier) talkTo(pod *netlab.Namespace) error {
	var server net.Listener
	err := pod.Do(func() (err error) {
		server, err = net.Listen("tcp4", netip.AddrPortFrom(podNet.Addr(), 80).String())
		return err
	})
	if err != nil {
		return err
	}
	defer server.Close()
	served := make(chan error, 1)
	go func() {
		c, err := server.Accept()
		if err == nil {
			_, err = io.Copy(c, io.LimitReader(c, 1000))
			err = errors.Join(err, c.Close())
		}
		served <- err
	}()
	return errors.Join(b.busy.Host.Do(func() error {
		c, err := net.DialTimeout("tcp4", server.Addr().String(), 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1000))
		return err
	}), <-served)
}

func (b *Busier) removeDevice(name string) error {
	link, err := b.busy.Host.Link(name)
	if err != nil {
		return err
	}
	return b.busy.Host.Links().LinkDel(link)
}

// Check says what of all that did not happen, or nil.
func (b *Busier) Check() error {
	var errs []error
	if b.containers.Load() == 0 {
		errs = append(errs, errors.New("no container came and went"))
	}
	again, err := b.retransmitted()
	if err != nil {
		return err
	}
	// The first loss may take a while to come by chance: a packet that nobody has
	// segmented yet is one.
	const largest = 64 << 10
	if n := b.sent.Load(); n > 10*lossOneIn*largest && again == 0 {
		errs = append(errs, fmt.Errorf("nothing of %d bytes was sent again", n))
	}
	link, err := b.busy.Host.Link(uplinkDevice)
	if err != nil {
		return err
	}
	list, err := b.busy.Host.Links().QdiscList(link)
	if err != nil {
		return fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range list {
		if s := q.Attrs().Statistics; q.Type() == "tbf" && s != nil && s.Queue != nil && (s.Queue.Overlimits == 0 || s.Queue.Drops > 0) {
			errs = append(errs, fmt.Errorf("the rate limit delayed %d times and dropped %d", s.Queue.Overlimits, s.Queue.Drops))
		}
	}
	return errors.Join(errs...)
}

// retransmitted reads Tcp.RetransSegs of the busy host.
func (b *Busier) retransmitted() (n uint64, err error) {
	var text []byte
	err = b.busy.Host.Do(func() error {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	})
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range bytes.Lines(text) {
		rest, ok := strings.CutPrefix(string(line), "Tcp:")
		if !ok {
			continue
		}
		if names == nil {
			names = strings.Fields(rest)
			continue
		}
		for i, v := range strings.Fields(rest) {
			if i < len(names) && names[i] == "RetransSegs" {
				return strconv.ParseUint(v, 10, 64)
			}
		}
	}
	return 0, errors.New("no Tcp.RetransSegs")
}
