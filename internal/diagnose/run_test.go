package diagnose_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// golden compares got with testdata/name.golden.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	testkit.Golden(t, filepath.Join("testdata", name+".golden"), got)
}

func count(reason, symbol string, drops uint64) record.Count {
	return record.Count{Key: key(reason, symbol), Drops: drops, Bytes: drops * 100}
}

func udp(src, dst string) *record.Packet {
	return &record.Packet{EtherType: 0x0800, Flow: record.Flow{
		Proto: 17, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst),
	}}
}

// What a summary of the drop monitor tells of hardware has no device: the title
// speaks of one all the same.
func TestTitleWithoutDevice(t *testing.T) {
	o := observation()
	c := record.Count{Drops: 10}
	c.Reason = record.Reason{Name: "ingress_flow_action_drop", Subsystem: record.SubsystemDevlink}
	o.Counts = []record.Count{c}
	d := diagnose.Run(o, load(t), diagnose.Options{})
	if want := "the network card of a device dropped 10 packets by a tc filter that it runs itself"; len(d.Findings) != 1 || d.Findings[0].Title != want {
		t.Errorf("%+v, want %q", d.Findings, want)
	}
}

// observation is ten seconds with two losses, one unknown drop and what an
// idle host shows beside them.
func observation() *record.Observation {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	lab := record.NetNS{Inode: 4026532281, Name: "lab"}
	host := record.NetNS{Inode: 4026531840, Name: "host"}

	full := count("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb.isra.0", 150)
	full.Reason.Value = 6
	full.NetNS, full.Device = lab, record.Device{Index: 5}
	full.EtherType, full.IPProto, full.Direction = 0x0800, 17, record.DirectionRX
	more := full // the same loss, once the device's name was known, at another call
	more.Drops, more.Device.Name, more.Location.Offset = 24, "veth0", 0x437

	refused := count("NETFILTER_DROP", "nft_do_chain", 30)
	refused.Reason.Value, refused.Location.Module = 12, "nf_tables"
	refused.NetNS, refused.Device, refused.Direction = host, record.Device{Index: 2, Name: "eth0"}, record.DirectionRX
	refused6 := refused
	refused6.EtherType, refused6.Direction, refused6.Drops = 0x86dd, record.DirectionForward, 1
	refused6.NetNS.Name, refused6.NetNS.Inode = "", 4026532999

	unknown := count("NOT_SPECIFIED", "my_driver_rx", 5)
	unknown.Reason.Value = 2
	purge := count("QUEUE_PURGE", "sk_stream_kill_queues", 9)
	lldp := count("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0", 3)

	o := &record.Observation{
		SchemaVersion: record.SchemaVersion,
		Host:          record.Host{Hostname: "h", BootID: "b", CPUs: 2, Program: "test"},
		Kernel:        record.Kernel{Release: "6.18.44", KfreeSkbArgs: 5, ReasonsFrom: "btf"},
		Window:        record.Window{Start: start, End: start.Add(10 * time.Second), Duration: 10 * time.Second},
		Sources:       []record.Source{{Name: "skbdrop", State: record.SourceOK}},
		Counts:        []record.Count{lldp, full, refused, unknown, more, purge, refused6},
		Blind:         []record.Blind{{What: "hardware", Why: "no skb exists there"}},
	}
	for i := range 7 {
		d := record.Drop{
			Key: more.Key, Packet: udp("10.0.0.1:4242", "10.0.0.2:5000"),
			Socket: &record.Socket{Inode: 77, From: "rx_sk"}, CurrentTask: record.Task{Comm: "never the owner"},
		}
		switch i {
		case 5:
			d.Packet = udp("10.0.0.3:1", "10.0.0.2:5000")
			d.Socket = &record.Socket{} // a socket without a file
		case 6:
			d.Packet, d.Socket = nil, nil
		}
		o.Samples = append(o.Samples, d)
	}
	o.Accounting = record.Accounting{
		DropsSeen: 222, DropsAggregated: 222, Samples: 7,
	}
	return o
}

func TestRun(t *testing.T) {
	for name, opt := range map[string]diagnose.Options{"run": {}, "run-all": {All: true}} {
		b, err := json.MarshalIndent(diagnose.Run(observation(), triage(t), opt), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, append(b, '\n'))
	}
}

// Every drop of the counts is in one finding or hidden, and is explained (by a
// cause, or as protocol life and noise) or not.
func TestRunLosesNothing(t *testing.T) {
	o := observation()
	var total uint64
	for _, c := range o.Counts {
		total += c.Drops
	}
	for _, all := range []bool{false, true} {
		d := diagnose.Run(o, triage(t), diagnose.Options{All: all})
		var shown uint64
		for _, f := range d.Findings {
			shown += f.Drops
		}
		a := d.Accounting
		if n := shown + a.DropsHiddenBenign + a.DropsHiddenExpected; n != total {
			t.Errorf("all=%v: %d shown or hidden of %d", all, n, total)
		}
		if n := a.DropsExplained + a.DropsUnexplained; n != total || a.DropsExplained != 12 {
			t.Errorf("all=%v: %d explained and %d not, of %d", all, a.DropsExplained, a.DropsUnexplained, total)
		}
		if hidden := a.DropsHiddenBenign + a.DropsHiddenExpected; all == (hidden > 0) {
			t.Errorf("all=%v: %d hidden", all, hidden)
		}
	}
}

// Counts come out of a hash table, samples in the order of the CPUs.
func TestRunIsDeterministic(t *testing.T) {
	k, o := triage(t), observation()
	for _, s := range []string{"a", "b", "c"} { // equals in drops
		c := count("TCP_CSUM", s, 30)
		o.Counts = append(o.Counts, c)
	}
	want := diagnose.Run(o, k, diagnose.Options{All: true})
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		r.Shuffle(len(o.Counts), func(i, j int) { o.Counts[i], o.Counts[j] = o.Counts[j], o.Counts[i] })
		r.Shuffle(len(o.Samples), func(i, j int) { o.Samples[i], o.Samples[j] = o.Samples[j], o.Samples[i] })
		got := diagnose.Run(o, k, diagnose.Options{All: true})
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
			t.Fatalf("another order, another diagnosis (-first +now):\n%s", d)
		}
	}
}

// Inodes and indexes are used again: a name is lent only where it is the only
// one, and never a namespace's.
func TestRunLendsNamesWithCare(t *testing.T) {
	at := func(device, netns string) record.Count {
		c := count("TCP_CSUM", "tcp_v4_rcv", 1)
		c.Device, c.NetNS = record.Device{Index: 2, Name: device}, record.NetNS{Inode: 4026532281, Name: netns}
		return c
	}
	for _, c := range []struct {
		counts         []record.Count
		devices, netns []string
	}{
		{
			[]record.Count{at("", ""), at("eth0", "")},
			[]string{"eth0 (netns net:[4026532281])"},
			[]string{"net:[4026532281]"},
		},
		{
			[]record.Count{at("", ""), at("eth0", ""), at("eth1", ""), at("eth0", "")},
			[]string{"eth0 (netns net:[4026532281])", "#2 (netns net:[4026532281])", "eth1 (netns net:[4026532281])"},
			[]string{"net:[4026532281]"},
		},
		{
			[]record.Count{at("eth0", ""), at("eth0", "lab"), at("eth0", "lab")},
			[]string{"eth0 (netns lab)", "eth0 (netns net:[4026532281])"},
			[]string{"lab", "net:[4026532281]"},
		},
	} {
		d := diagnose.Run(&record.Observation{Counts: c.counts}, triage(t), diagnose.Options{})
		if len(d.Findings) != 1 {
			t.Fatalf("%d findings", len(d.Findings))
		}
		if diff := cmp.Diff(c.devices, d.Findings[0].Devices); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(c.netns, d.Findings[0].NetNS); diff != "" {
			t.Error(diff)
		}
	}
}

func TestRunDoesNotChangeTheObservation(t *testing.T) {
	o := observation()
	o.Counters = []record.Counter{{Name: "Udp.RcvbufErrors", Delta: 1}}
	d := diagnose.Run(o, triage(t), diagnose.Options{})
	d.Sources[0].Name, d.Blind[0].What, d.Counters[0].Name = "changed", "changed", "changed"
	want := observation()
	want.Counters = []record.Counter{{Name: "Udp.RcvbufErrors", Delta: 1}}
	if diff := cmp.Diff(want, o, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
}

// A reader of the JSON may rely on arrays: null is not one.
func TestRunHasNoNull(t *testing.T) {
	bare := &record.Observation{
		Counts:   []record.Count{count("", "", 1)},
		Counters: []record.Counter{{Name: "Udp.RcvbufErrors", Delta: 1}},
	}
	for name, o := range map[string]*record.Observation{"empty": {}, "bare": bare, "full": observation()} {
		b, err := json.Marshal(diagnose.Run(o, triage(t), diagnose.Options{All: true}))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("null")) {
			t.Errorf("%s: %s", name, b)
		}
	}
}

func TestExceedsFailOn(t *testing.T) {
	with := func(classes ...record.Class) (d record.Diagnosis) {
		for _, c := range classes {
			d.Findings = append(d.Findings, record.Finding{Class: c})
		}
		return d
	}
	const f, c, p, e, b = record.ClassFault, record.ClassCapacity, record.ClassPolicy, record.ClassExpected, record.ClassBenign
	for _, tc := range []struct {
		d    record.Diagnosis
		on   record.Class
		want bool
	}{
		{with(f), "", false},
		{with(), f, false},
		{with(f), f, true},
		{with(c), f, false},
		{with(p, c), c, true},
		{with(f), p, true},
		{with(p), p, true},
		{with(p), c, false},
		{with(e, b), p, false},
		{with(e, b), e, false},
		{with(e, b), b, false},
	} {
		if got := diagnose.ExceedsFailOn(tc.d, tc.on); got != tc.want {
			t.Errorf("findings %+v, fail on %q: %v, want %v", tc.d.Findings, tc.on, got, tc.want)
		}
	}
}
