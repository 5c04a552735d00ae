package counter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

func share(name, object string, v uint64) Value { return Value{Name: name, Object: object, Value: v} }

func known(name, object string, v uint64) Value {
	return Value{Name: name, Object: object, ID: idOf(object), Value: v}
}

// growth are the deltas of a comparison by object, with a question mark behind
// what was reset.
func growth(list []record.Counter) map[string]string {
	got := map[string]string{}
	for _, c := range list {
		text := strconv.FormatUint(c.Delta, 10)
		if c.Reset {
			text += "?"
		}
		if c.Delta > 0 && c.Before != c.After-c.Delta {
			text += fmt.Sprintf(" from %d to %d", c.Before, c.After)
		}
		name := c.Object
		if !strings.Contains(c.Name, "drop") || strings.Contains(c.Name, "nft.packets") {
			name = c.Name + " " + c.Object
		}
		got[name] = text
	}
	return got
}

// TestTotals: a total of which a part went, came or went back grew by what its
// parts did.
func TestTotals(t *testing.T) {
	const drops, soft = "nft.drop_packets", "softnet.dropped"
	short := func(s Snapshot) Snapshot {
		s.miss("", errors.New("not all"))
		return s
	}
	for _, c := range []struct {
		name          string
		before, after Snapshot
		want          map[string]string
	}{
		{
			"a rule is gone", snapshot(plain(drops, 1_000_000), known(drops, "rule 2", 1_000_000), known(drops, "rule 3", 0)),
			snapshot(plain(drops, 500), known(drops, "rule 3", 500)),
			map[string]string{"": "500?", "rule 3": "500"},
		},
		{
			"and the total grew", snapshot(plain(drops, 100), known(drops, "rule 2", 100), known(drops, "rule 3", 0)),
			snapshot(plain(drops, 500), known(drops, "rule 3", 500)),
			map[string]string{"": "500?", "rule 3": "500"},
		},
		{
			"a rule that had nothing is gone", snapshot(plain(drops, 7), known(drops, "rule 2", 0), known(drops, "rule 3", 7)),
			snapshot(plain(drops, 9), known(drops, "rule 3", 9)),
			map[string]string{"": "2", "rule 3": "2"},
		},
		{
			"the first rule", snapshot(plain("Udp.NoPorts", 0)),
			snapshot(plain(drops, 5), known(drops, "rule 2", 5)),
			map[string]string{"": "5", "rule 2": "5"},
		},
		{
			"a rule that was not listed before", short(snapshot(plain("Udp.NoPorts", 0))),
			snapshot(plain(drops, 5), known(drops, "rule 2", 5)),
			map[string]string{"": "0", "rule 2": "0"},
		},
		{
			"a rule is set to 0", snapshot(plain(drops, 107), known(drops, "rule 2", 100), known(drops, "rule 3", 7)),
			snapshot(plain(drops, 12), known(drops, "rule 2", 3), known(drops, "rule 3", 9)),
			map[string]string{"": "2?", "rule 2": "0?", "rule 3": "2"},
		},
		{
			"there are more rules than are listed", snapshot(plain(drops, 1000), known(drops, "rule 2", 600)),
			snapshot(plain(drops, 500), known(drops, "rule 3", 1)),
			map[string]string{"": "100?", "rule 3": "1"},
		},
		{
			"a policy drops from now on", snapshot(plain(drops, 5), known(drops, "rule 2", 5), known("nft.packets", "policy", 9000)),
			snapshot(plain(drops, 9014), known(drops, "rule 2", 6), known(drops, "policy", 9008)),
			map[string]string{"": "9", "rule 2": "1", "policy": "8"},
		},
		{
			"a CPU overflows", snapshot(plain(soft, 9000), share(soft, "cpu 0", 8000), share(soft, "cpu 1", 1000)),
			snapshot(plain(soft, 4000), share(soft, "cpu 0", 1000), share(soft, "cpu 1", 3000)),
			map[string]string{"": "2000?", "cpu 0": "0?", "cpu 1": "2000"},
		},
		{
			"a CPU goes offline", snapshot(plain(soft, 9000), share(soft, "cpu 0", 8000), share(soft, "cpu 1", 1000)),
			snapshot(plain(soft, 1200), share(soft, "cpu 1", 1200)),
			map[string]string{"": "200?", "cpu 1": "200"},
		},
		{
			"a CPU comes online", snapshot(plain(soft, 1000), share(soft, "cpu 1", 1000)),
			snapshot(plain(soft, 9200), share(soft, "cpu 0", 8000), share(soft, "cpu 1", 1200)),
			map[string]string{"": "200", "cpu 0": "0", "cpu 1": "200"},
		},
		{
			"a queue is added", snapshot(plain("e.drops", 10), share("e.drops", "queue rx-0", 10)),
			snapshot(plain("e.drops", 30), share("e.drops", "queue rx-0", 20), share("e.drops", "queue rx-1", 10)),
			map[string]string{"": "20", "queue rx-0": "10", "queue rx-1": "0"},
		},
		{
			"other things than the total", snapshot(plain("e.drops", 10), share("e.drops", "queue rx-0", 50), share("e.drops", "queue rx-1", 50)),
			snapshot(plain("e.drops", 12), share("e.drops", "queue rx-0", 60), share("e.drops", "queue rx-1", 1)),
			map[string]string{"": "2", "queue rx-0": "10", "queue rx-1": "0?"},
		},
		{
			"a total alone", snapshot(plain("e.drops", 10)), snapshot(plain("e.drops", 9)), map[string]string{"": "0?"},
		},
		{
			"no read before",
			Snapshot{},
			snapshot(plain(drops, 5), known(drops, "rule 2", 5)),
			map[string]string{"": "0", "rule 2": "0"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.before.Values {
				c.before.Values[i].Source = ""
			}
			for i := range c.after.Values {
				c.after.Values[i].Source = ""
			}
			if d := cmp.Diff(c.want, growth(Diff(c.before, c.after, record.NetNS{}))); d != "" {
				t.Error(d)
			}
		})
	}
}

// qdiscsOf is a snapshot of the qdiscs of a device that is there all the time.
func qdiscsOf(t *testing.T, messages ...[]byte) Snapshot {
	t.Helper()
	qdiscs, err := decodeQdiscs(messages)
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot(ofDevice("link.rx_packets", 1, 1))
	values, err := qdiscValues(qdiscs, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if v.Name == "qdisc.drops" {
			s.Values = append(s.Values, v)
		}
	}
	s.queues = placesOf(qdiscs)
	return s
}

// TestReplacedQdiscs: a qdisc that was made in between began at 0, and the loss
// of its device is that of the whole tree.
func TestReplacedQdiscs(t *testing.T) {
	const root = handleRoot
	for _, c := range []struct {
		name          string
		before, after [][]byte
		want          map[string]string
	}{
		{
			"the only one",
			[][]byte{queue(1, 0x10000, root, "tbf", 996)},
			[][]byte{queue(1, 0x20000, root, "tbf", 2696)},
			map[string]string{"": "2696?", "qdisc 2:": "2696"},
		},
		{
			"another kind with the same handle",
			[][]byte{queue(1, 0x10000, root, "tbf", 996)},
			[][]byte{queue(1, 0x10000, root, "fq", 1000)},
			map[string]string{"": "1000?", "qdisc 1:": "1000"},
		},
		{
			"there was none", nil,
			[][]byte{queue(1, 0x10000, root, "tbf", 7)},
			map[string]string{"": "7", "qdisc 1:": "7"},
		},
		{
			"a leaf of mq", // which adds up its children when it is asked
			[][]byte{queue(1, 0x10000, root, "mq", 130), queue(1, 0x20000, 0x10001, "fq", 100), queue(1, 0x30000, 0x10002, "fq", 30)},
			[][]byte{queue(1, 0x10000, root, "mq", 45), queue(1, 0x40000, 0x10001, "fq", 5), queue(1, 0x30000, 0x10002, "fq", 40)},
			map[string]string{"": "15?", "qdisc 1:": "0?", "qdisc 4:": "5", "qdisc 3:": "10"},
		},
		{
			"a leaf of htb", // which counts what its leaves dropped for itself
			[][]byte{queue(1, 0x10000, root, "htb", 130), queue(1, 0x20000, 0x10001, "pfifo", 100)},
			[][]byte{queue(1, 0x10000, root, "htb", 140), queue(1, 0x30000, 0x10001, "pfifo", 8)},
			map[string]string{"": "10?", "qdisc 1:": "10", "qdisc 3:": "8"},
		},
		{
			"none",
			[][]byte{queue(1, 0x10000, root, "htb", 130), queue(1, 0x20000, 0x10001, "pfifo", 100)},
			[][]byte{queue(1, 0x10000, root, "htb", 140), queue(1, 0x20000, 0x10001, "pfifo", 110)},
			map[string]string{"": "10", "qdisc 1:": "10", "qdisc 2:": "10"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := growth(Diff(qdiscsOf(t, c.before...), qdiscsOf(t, c.after...), record.NetNS{}))
			delete(got, "link.rx_packets ")
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestNewClasses: classes that are set up begin at 0; those that are flows are
// listed only while they hold packets, and have a past.
func TestNewClasses(t *testing.T) {
	stats := tcStats{hasQueue: true, drops: 9}
	snap := func(classes ...class) Snapshot {
		values, err := classValues(classes, nil)
		if err != nil {
			t.Fatal(err)
		}
		return snapshot(append(values, ofDevice("link.rx_packets", 1, 1))...)
	}
	old := class{device: 1, handle: 0x10001, kind: "htb", stats: stats}
	list := Diff(snap(old), snap(old,
		class{device: 1, handle: 0x10002, kind: "htb", stats: stats}, class{device: 1, handle: 0x20002, kind: "cake", stats: stats}), record.NetNS{})
	got := map[string]uint64{}
	for _, c := range list {
		if c.Name == "class.drops" {
			got[c.Object] = c.Delta
		}
	}
	if d := cmp.Diff(map[string]uint64{"class 1:1": 0, "class 1:2": 9, "class 2:2": 0}, got); d != "" {
		t.Error(d)
	}
}

// TestRulesByContent: a rule of iptables-legacy is the same wherever it stands;
// two that say the same are told apart by their order.
func TestRulesByContent(t *testing.T) {
	f := kernelnet.XtFamilies()[0]
	rule := func(number int, match string, packets uint64) kernelnet.XtRule {
		return kernelnet.XtRule{Chain: "INPUT", Number: number, Matches: []byte(match), Target: "REJECT", Packets: packets}
	}
	snap := func(rules ...kernelnet.XtRule) Snapshot {
		all := xtValues{whole: true}
		all.add(f, "filter", rules, nil)
		s := snapshot(all.values()...)
		s.Values = append([]Value{}, s.Values...)
		for i := len(s.Values) - 1; i >= 0; i-- {
			if strings.HasSuffix(s.Values[i].Name, "bytes") {
				s.Values = append(s.Values[:i], s.Values[i+1:]...)
			}
		}
		return s
	}
	before := snap(rule(1, "1111", 5), rule(2, "3333", 1_000_000), rule(3, "2222", 0), rule(4, "2222", 70))
	for _, c := range []struct {
		name  string
		after Snapshot
		want  map[string]string
	}{
		{
			"the first is gone", snap(rule(1, "3333", 1_000_000), rule(2, "2222", 1), rule(3, "2222", 73)),
			map[string]string{"": "4?", "rule ip filter INPUT 1": "0", "rule ip filter INPUT 2": "1", "rule ip filter INPUT 3": "3"},
		},
		{
			"those before two equal ones are gone", snap(rule(1, "2222", 1), rule(2, "2222", 73)),
			map[string]string{"": "4?", "rule ip filter INPUT 1": "1", "rule ip filter INPUT 2": "3"},
		},
		{
			"another before them", snap(rule(1, "4444", 8), rule(2, "1111", 5), rule(3, "3333", 1_000_001), rule(4, "2222", 0), rule(5, "2222", 70)),
			map[string]string{
				"": "9", "rule ip filter INPUT 1": "8", "rule ip filter INPUT 2": "0", "rule ip filter INPUT 3": "1",
				"rule ip filter INPUT 4": "0", "rule ip filter INPUT 5": "0",
			},
		},
	} {
		if d := cmp.Diff(c.want, growth(Diff(before, c.after, record.NetNS{}))); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// linked is a snapshot with devices, which counted so much.
func linked(devices map[identity]uint64) Snapshot {
	s := snapshot()
	for d, v := range devices {
		s.links = append(s.links, d)
		s.Values = append(s.Values, ofDevice("link.rx_dropped", d.index, v))
		q := ofDevice("qdisc.drops", d.index, 3)
		q.Object, q.ID, q.Source = "qdisc 1:", 1, qdiscSource
		s.Values = append(s.Values, q)
	}
	slices.SortFunc(s.links, func(a, b identity) int { return int(a.index) - int(b.index) })
	return s
}

// TestMovedDevices: a device is new only if it can be none that has left
// another namespace.
func TestMovedDevices(t *testing.T) {
	lo := identity{index: 1, name: "lo"}
	eth := identity{index: 7, name: "eth7", address: 70, permanent: 71}
	here := linked(map[identity]uint64{lo: 0})
	for _, c := range []struct {
		name   string
		before map[identity]uint64 // in another namespace
		after  map[identity]uint64
		now    identity // in this one
		want   uint64   // of the 777 packets that it lost
		came   int
	}{
		{"made", map[identity]uint64{lo: 0}, map[identity]uint64{lo: 0}, eth, 777, 0},
		{"others of that index are elsewhere", map[identity]uint64{lo: 0, eth: 3}, map[identity]uint64{lo: 0, eth: 3}, eth, 777, 0},
		{"moved", map[identity]uint64{lo: 0, eth: 777}, map[identity]uint64{lo: 0}, eth, 0, 1},
		{"with another name", map[identity]uint64{eth: 777}, nil, identity{index: 7, name: "new"}, 0, 1},
		{"with another index", map[identity]uint64{eth: 777}, nil, identity{index: 9, name: "eth7"}, 0, 1},
		{"with its address", map[identity]uint64{eth: 777}, nil, identity{index: 9, name: "new", address: 70}, 0, 1},
		{"with its own address", map[identity]uint64{eth: 777}, nil, identity{index: 9, name: "new", address: 1, permanent: 71}, 0, 1},
		{"another one has gone", map[identity]uint64{eth: 777}, nil, identity{index: 9, name: "new", address: 1, permanent: 2}, 777, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m Moves
			m.Add(linked(c.before), linked(c.after))
			after := linked(map[identity]uint64{lo: 0, c.now: 777})
			for _, d := range AppendDiff(nil, here, after, record.NetNS{}, &m) {
				switch {
				case d.Device.Index != c.now.index:
				case d.Object != "" && d.Delta != 3:
					t.Errorf("its qdisc is new wherever it comes from: %+v", d)
				case d.Object == "" && d.Delta != c.want:
					t.Errorf("%+v", d)
				}
			}
			if m.Came() != c.came {
				t.Errorf("%d came, want %d", m.Came(), c.came)
			}
		})
	}
	delta := func(before, after Snapshot, m *Moves) uint64 {
		return AppendDiff(nil, before, after, record.NetNS{}, m)[0].Delta
	}
	one := func(d identity, v uint64) Snapshot { return linked(map[identity]uint64{d: v}) }
	var partly Moves
	if partly.Partly(); delta(here, one(eth, 777), &partly) != 0 || partly.Came() != 1 {
		t.Error("it may have come from a namespace that was not read")
	}
	blind := one(eth, 5)
	blind.miss(linkSource, errors.New("no"))
	var m Moves
	if m.Add(blind, one(lo, 0)); delta(here, one(identity{index: 8, name: "x"}, 777), &m) != 0 {
		t.Error("the devices that were elsewhere are not known")
	}
	for name, d := range map[string]struct {
		now  identity
		want uint64
	}{
		"renamed":                     {identity{index: 7, name: "new", address: 70, permanent: 71}, 772},
		"with another address":        {identity{index: 7, name: "eth7", address: 1, permanent: 71}, 772},
		"another one in its place":    {identity{index: 7, name: "eth7", address: 70, permanent: 1}, 0},
		"another one without its own": {identity{index: 7, name: "new", address: 1}, 0},
	} {
		if got := delta(one(eth, 5), one(d.now, 777), &Moves{}); got != d.want {
			t.Errorf("%s: %d, want %d", name, got, d.want)
		}
	}
}

// TestIdentities: devices without an address have none, by which they could be
// taken for one another.
func TestIdentities(t *testing.T) {
	list := identities(loadMessages(t, "links-7.2.hex"))
	if len(list) < 3 {
		t.Fatalf("%+v", list)
	}
	addressed := 0
	for i, d := range list {
		if d.name == "lo" && (d.address != 0 || d.permanent != 0) || d.index == 0 || i > 0 && d.index <= list[i-1].index {
			t.Errorf("%+v", d)
		}
		if d.address != 0 {
			addressed++
		}
	}
	if addressed == 0 {
		t.Error("no device has an address")
	}
}
