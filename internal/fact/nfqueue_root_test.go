//go:build root

package fact

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strconv"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// listener reads a queue of NFQUEUE, or rather never does.
type listener struct {
	*nl.NetlinkSocket
	portid uint32
}

// bindQueue binds queue number in the namespace of the thread, for whole packets,
// at most limit of them.
func bindQueue(t *testing.T, number uint16, limit uint32) *listener {
	t.Helper()
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	must(t, err)
	t.Cleanup(s.Close)
	portid, err := s.GetPid()
	must(t, err)
	l := &listener{s, portid}
	must(t, s.SetReceiveTimeout(&unix.Timeval{Sec: 30}))
	// include/uapi/linux/netfilter/nfnetlink_queue.h
	const (
		cfgCmd, cfgParams, cfgMaxLen = 1, 2, 3
		bind, copyPacket             = 1, 2
	)
	l.configure(t, number, message{}.Attr(cfgCmd, []byte{bind, 0, 0, unix.AF_INET}))
	l.configure(t, number, message{}.Attr(cfgParams, []byte{0, 0, 0x10, 0, copyPacket}).Attr(cfgMaxLen, binary.BigEndian.AppendUint32(nil, limit)))
	return l
}

// configure sends NFQNL_MSG_CONFIG and waits for the kernel's answer.
func (l *listener) configure(t *testing.T, number uint16, attrs message) {
	t.Helper()
	const subsysQueue, msgConfig = 3, 2
	req := nl.NewNetlinkRequest(subsysQueue<<8|msgConfig, unix.NLM_F_ACK)
	req.AddData(append(message{}.U8(unix.AF_UNSPEC, 0, byte(number>>8), byte(number)), attrs...))
	must(t, l.Send(req))
	for {
		msgs, _, err := l.Receive()
		must(t, err)
		for _, m := range msgs {
			if m.Header.Type != unix.NLMSG_ERROR || m.Header.Seq != req.Seq {
				continue
			}
			if e := int32(native.Uint32(m.Data)); e != 0 {
				needKernel(t, "nfnetlink_queue", unix.Errno(-e))
			}
			return
		}
	}
}

// queueOutput has every datagram that the namespace sends to a port handed to
// a queue, by the target of iptables: not every kernel has the expression of
// nftables that does the same.
func queueOutput(t *testing.T, number uint16, port uint16) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "t"})
	chain := c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
	info := xt.Unknown(append(binary.NativeEndian.AppendUint16(nil, number), make([]byte, 6)...))
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Target{Name: "NFQUEUE", Info: &info},
	}})
	needKernel(t, "target NFQUEUE", c.Flush())
}

func TestNfqueuesOfNamespace(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		const number, limit, sent = 77, 3, 8
		if f := one(t, "nfqueues", ""); f.Value != None || f.NetNS != ns {
			t.Errorf("at first: %+v", f)
		}
		l := bindQueue(t, number, limit)
		want := fields{"portid": decimal(l.portid), "queued": "0", "copy_mode": "2", "copy_range": "4096", "dropped": "0", "user_dropped": "0"}
		f := one(t, "nfqueues", "")
		if d := gocmp.Diff(want, f.Fields); d != "" || f.Name != strconv.Itoa(number) || f.Value != "0" {
			t.Errorf("bound: %+v: %s", f, d)
		}
		queueOutput(t, number, 9)
		conn, err := net.Dial("udp", "127.0.0.1:9")
		must(t, err)
		defer conn.Close()
		for range sent {
			if _, err := conn.Write([]byte("x")); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		want["queued"], want["dropped"] = strconv.Itoa(limit), strconv.Itoa(sent-limit)
		if f := one(t, "nfqueues", ""); gocmp.Diff(want, f.Fields) != "" || f.Value != strconv.Itoa(limit) {
			t.Errorf("full: %+v, want %v", f, want)
		}
		// With the program its queue goes.
		l.Close()
		within(t, "the queue is gone", func() bool { return one(t, "nfqueues", "").Value == None })
	})
}
