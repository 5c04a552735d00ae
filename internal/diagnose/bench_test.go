package diagnose_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// large is an observation of a large host: 10,000 keys of drops and 5,000
// counters, of which one in every moved, in 10 namespaces with 10 devices each.
func large(every int) *record.Observation {
	o := &record.Observation{
		Kernel: record.Kernel{Release: "6.18.44"}, Window: record.Window{Duration: 10 * time.Second},
		CountersWindow: record.Window{Duration: 9900 * time.Millisecond},
		Sources:        []record.Source{{Name: "skbdrop", State: record.SourceOK}},
	}
	sites := strings.Fields(`SOCKET_RCVBUFF@udp_queue_rcv_one_skb NO_SOCKET@__udp4_lib_rcv NO_SOCKET@tcp_v4_rcv
		NETFILTER_DROP@nft_do_chain QDISC_DROP@__dev_queue_xmit NOT_SPECIFIED@tcp_v4_rcv UNHANDLED_PROTO@__netif_receive_skb_core
		NOT_SPECIFIED@somewhere CPU_BACKLOG@enqueue_to_backlog QUEUE_PURGE@sk_stream_kill_queues TCP_RESET@tcp_rcv_established
		TCP_OLD_DATA@tcp_data_queue NOT_SPECIFIED@ip_rcv_finish_core IP_RPFILTER@ip_rcv_finish_core OTHERHOST@ip_rcv_core
		IP_CSUM@ip_rcv_core NEIGH_FAILED@neigh_invalidate TC_INGRESS@__netif_receive_skb_core UDP_CSUM@__udp4_lib_rcv IP_INHDR@ip_forward`)
	counters := strings.Fields(`Udp.RcvbufErrors Udp.InErrors Udp.NoPorts Udp.SndbufErrors Ip.OutDiscards TcpExt.ListenDrops Ip.InHdrErrors
		Icmp.InErrors Tcp.InErrs TcpExt.IPReversePathFilter`)
	ofDevice := strings.Fields("link.rx_dropped link.tx_dropped qdisc.drops link.rx_missed_errors link.rx_otherhost_dropped clsact.drops")
	for n := range 10 {
		ns := record.NetNS{Inode: uint32(4026532000 + n), Name: fmt.Sprint("ns", n)}
		add := func(dev record.Device, name string, moved int) {
			o.Counters = append(o.Counters, record.Counter{Name: name, NetNS: ns, Device: dev, After: uint64(moved), Delta: uint64(moved)})
		}
		for i := range 200 {
			if i < len(counters) {
				add(record.Device{}, counters[i], 100+n)
			} else {
				add(record.Device{}, fmt.Sprint("Tcp.Activity", i), 100+n)
			}
		}
		for d := range 10 {
			dev := record.Device{Index: uint32(d + 1), Name: fmt.Sprint("eth", d)}
			for i := range 30 {
				if i < len(ofDevice) {
					add(dev, ofDevice[i], 10+d)
				} else {
					add(dev, fmt.Sprint("link.activity", i), 10+d)
				}
			}
			for _, s := range sites {
				reason, symbol, _ := strings.Cut(s, "@")
				for i, packet := range []struct {
					proto uint8
					ether uint16
				}{{17, 0x0800}, {6, 0x0800}, {17, 0x86dd}, {6, 0x86dd}, {1, 0x0800}} {
					c := count(reason, symbol, uint64(10+d+i))
					c.NetNS, c.Device, c.IPProto, c.EtherType, c.Direction = ns, dev, packet.proto, packet.ether, record.DirectionRX
					o.Counts = append(o.Counts, c)
				}
			}
		}
	}
	for i := range o.Counters {
		if c := &o.Counters[i]; i%every != 0 {
			c.Before, c.Delta = c.After, 0
		}
	}
	if len(o.Counts) != 10_000 || len(o.Counters) != 5000 {
		panic(fmt.Sprint(len(o.Counts), " keys and ", len(o.Counters), " counters"))
	}
	for i := range 2000 {
		o.Samples = append(o.Samples, record.Drop{Key: o.Counts[i*5].Key, Packet: udp("10.0.0.1:1000", fmt.Sprintf("10.0.0.2:%d", 1000+i))})
	}
	return o
}

// BenchmarkRun diagnoses a large host, where one in ten counters moved and where
// all did. On a machine with nothing else to do both must stay below 50 ms.
func BenchmarkRun(b *testing.B) {
	for _, every := range []int{10, 1} {
		b.Run(fmt.Sprintf("1 of %d counters moved", every), func(b *testing.B) {
			k, o := load(b), large(every)
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				if d := diagnose.Run(o, k, diagnose.Options{}); len(d.Findings) == 0 {
					b.Fatal("nothing found")
				}
			}
			// Of all threads: what other programs take of the machine is not in it.
			b.ReportMetric(float64(cpu(b)-before)/1e6/float64(b.N), "cpu-ms/op")
		})
	}
}

// TestRunStaysQuick bounds the work of a diagnosis by what can be measured on a
// busy machine too.
func TestRunStaysQuick(t *testing.T) {
	k, o := load(t), large(10)
	if n := testing.AllocsPerRun(1, func() { diagnose.Run(o, k, diagnose.Options{}) }); n > 110_000 {
		t.Errorf("%.0f allocations for 10,000 keys and 5,000 counters", n)
	}
}

// cpu is the time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
