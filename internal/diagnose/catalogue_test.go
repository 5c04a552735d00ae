package diagnose_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

const goodCounters = `counters:
  T.a: {station: socket, direction: rx, unit: packets, kind: loss, sentence: It counts., kernel: x}
  T.b: {station: socket, direction: rx, unit: packets, kind: activity, sentence: It counts., kernel: x}
`

func catalogue(counters, stations string) fstest.MapFS {
	files := causesFS(cause("one", byReason+counterA))
	files["counters/t.yaml"] = &fstest.MapFile{Data: []byte(counters)}
	files["stations.yaml"] = &fstest.MapFile{Data: []byte(stations)}
	return files
}

func TestLoadCatalogueRefuses(t *testing.T) {
	const stations = "next: {socket: [ss]}\nlayers: {udp: {rx: socket, tx: socket-tx}}\n"
	if k, err := diagnose.Load(catalogue(goodCounters, stations)); err != nil || k.Layers()["udp"].TX != record.StationSocketTX {
		t.Fatalf("layers %v, %v", k.Layers(), err)
	}
	for _, c := range []struct{ name, counters, stations, want string }{
		{"kind", strings.Replace(goodCounters, "loss", "luck", 1), stations, `unknown kind "luck"`},
		{"part of nothing", goodCounters + "  T.p: {station: socket, direction: rx, unit: packets, kind: nothing, sentence: It counts., kernel: x, part_of: [T.z]}\n", stations, `part_of: "T.z"`},
		{"a loss is part", goodCounters + "  T.p: {station: socket, direction: rx, unit: packets, kind: loss, sentence: It counts., kernel: x, part_of: [T.a]}\n", stations, `part_of: "T.a"`},
		{"station", strings.Replace(goodCounters, "socket", "moon", 1), stations, `unknown station "moon"`},
		{"sentence", strings.Replace(goodCounters, "It counts.", `""`, 1), stations, "sentence"},
		{"next", goodCounters, "next: {moon: [x]}\n", `unknown station "moon"`},
		{"layer", goodCounters, "layers: {udp: {rx: socket, tx: moon}}\n", "layer udp"},
		{"field", goodCounters, "more: 1\n", "more"},
	} {
		if _, err := diagnose.Load(catalogue(c.counters, c.stations)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	twice := catalogue(goodCounters, stations)
	twice["counters/u.yaml"] = twice["counters/t.yaml"]
	if _, err := diagnose.Load(twice); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a counter in two files: %v", err)
	}
}

// TestEveryLayerHasStations holds the words that engineers use for layers.
func TestEveryLayerHasStations(t *testing.T) {
	layers := load(t).Layers()
	for _, name := range strings.Fields(`backlog bpf bridge conntrack driver-tx hypervisor icmp ip-frag ip-in irq link
		macvlan memory mtu multicast neighbour netfilter nic-filter nic-phy nic-ring observer qdisc rdma routing
		security softirq tc-egress tc-ingress tcp tcp-listen tun tunnel udp unix veth xdp xfrm`) {
		if _, ok := layers[name]; !ok {
			t.Errorf("layer %s has no stations", name)
		}
	}
}

// Of the counters that moved those of loss are listed, with their station and
// the finding that quotes them.
func TestRunListsCountersThatMoved(t *testing.T) {
	k, err := diagnose.Load(catalogue(goodCounters, "next: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := moves("T.a", 3)
	elsewhere.NetNS = record.NetNS{Inode: 4026539999}
	d := diagnose.Run(watched(a(9), moves("T.a", 9), moves("T.b", 9), moves("T.unknown", 1), elsewhere), k, diagnose.Options{})
	if len(d.Counters) != 2 {
		t.Fatalf("counters %+v", d.Counters)
	}
	if c := d.Counters[0]; c.Name != "T.a" || c.Station != "socket" || len(c.ExplainedBy) != 1 || c.ExplainedBy[0] != "one" {
		t.Errorf("counter %+v, want T.a at socket, explained by one", c)
	}
	if c := d.Counters[1]; c.NetNS != elsewhere.NetNS || len(c.ExplainedBy) != 1 || c.ExplainedBy[0] != record.CauseNotKnown {
		t.Errorf("counter %+v, want the one of another namespace, a finding of its own", c)
	}
}
