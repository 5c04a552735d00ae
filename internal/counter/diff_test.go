package counter

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

func snapshot(values ...Value) Snapshot {
	return Snapshot{Time: time.Unix(1, 0), Values: values}
}

func plain(name string, v uint64) Value { return Value{Name: name, Value: v, Source: "/proc/net/snmp"} }

func ofDevice(name string, index uint32, v uint64) Value {
	return Value{Name: name, Device: record.Device{Index: index, Name: "dev"}, Value: v, Source: linkSource}
}

func TestDiff(t *testing.T) {
	ns := record.NetNS{Inode: 4026531833, Name: "red"}
	failed := func(s Snapshot, source string) Snapshot {
		s.miss(source, errors.New("permission denied"))
		return s
	}
	rx3, rx7 := ofDevice("link.rx_dropped", 3, 10), ofDevice("link.rx_dropped", 7, 10)
	plimit := Value{Name: "fq.flows_plimit", Device: rx3.Device, Value: 10, Source: qdiscSource}
	icmp := plain("IcmpMsg.OutType3", 10)
	for _, c := range []struct {
		name          string
		before, after Snapshot
		want          uint64 // of Before; After is 10
	}{
		{"grew", snapshot(plain("Udp.NoPorts", 4)), snapshot(plain("Udp.NoPorts", 10)), 4},
		{"same", snapshot(plain("Udp.NoPorts", 10)), snapshot(plain("Udp.NoPorts", 10)), 10},
		{"went back", snapshot(plain("Udp.NoPorts", 11)), snapshot(plain("Udp.NoPorts", 10)), 11},
		{"by device", snapshot(ofDevice("link.rx_dropped", 7, 1), ofDevice("link.rx_dropped", 3, 2)), snapshot(rx3), 2},
		{"new device", snapshot(ofDevice("link.rx_dropped", 7, 1)), snapshot(rx3), 0},
		{"first device", snapshot(), snapshot(rx3), 0},
		{"new counter of a known device", snapshot(ofDevice("link.rx_dropped", 3, 1)), snapshot(plimit), 10},
		{"new counter of a new device", snapshot(rx7), snapshot(plimit), 0},
		{"devices were not read", failed(snapshot(), linkSource), snapshot(rx3), 10},
		{"new counter", snapshot(plain("Udp.InErrors", 4)), snapshot(plain("Udp.NoPorts", 10)), 10},
		{"shown only above 0", snapshot(plain("Udp.InErrors", 4)), snapshot(icmp), 0},
		{"shown only above 0, not read", failed(snapshot(), "/proc/net/snmp"), snapshot(icmp), 10},
		{"no read before", Snapshot{}, snapshot(rx3), 10},
		{"no read before, shown only above 0", Snapshot{}, snapshot(icmp), 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Diff(c.before, c.after, ns)
			v := c.after.Values[0]
			want := record.Counter{
				Name: v.Name, NetNS: ns, Device: v.Device, Before: c.want, After: 10,
				Delta: 10 - min(c.want, 10), Reset: c.want > 10, Source: v.Source,
			}
			if diff := cmp.Diff([]record.Counter{want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDiffOrder: in the order of the later read, without what is gone.
func TestDiffOrder(t *testing.T) {
	got := Diff(
		snapshot(plain("a", 1), plain("b", 1), ofDevice("c", 4, 9)),
		snapshot(plain("b", 3), plain("a", 1)), record.NetNS{})
	if len(got) != 2 || got[0].Name != "b" || got[0].Delta != 2 || got[1].Name != "a" || got[1].Delta != 0 {
		t.Errorf("%+v", got)
	}
}
