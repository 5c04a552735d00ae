//go:build root

package observe

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// TestQdiscDropsAndReason fills a token bucket. The qdisc's own counter is the
// truth; since 7.2 it also says which of its limits was met.
func TestQdiscDropsAndReason(t *testing.T) {
	host, _ := pair(t, "host0")
	link, err := host.Links().LinkByName("host0")
	if err != nil {
		t.Fatal(err)
	}
	tbf := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       1000, Buffer: netlink.Xmittime(1000, 1600), Limit: 1500, // bytes a second, ticks, bytes
	}
	if err := host.Links().QdiscAdd(tbf); err != nil {
		t.Fatal(err)
	}
	o := watched(t, func() { udp(t, host, "192.0.2.2:9", 200) }, host)
	want := qdiscDrops(t, host, link)
	if want == 0 {
		t.Fatal("the qdisc dropped nothing")
	}
	var got uint64
	reasons := map[record.Reason]uint64{}
	for _, c := range o.Counts {
		if c.Direction == record.DirectionTX {
			got += c.Drops
			reasons[c.Reason] += c.Drops
		}
	}
	if got != want {
		t.Errorf("%d drops, the qdisc counts %d: %+v", got, want, o.Counts)
	}
	types, err := kernel.Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	has, err := types.HasQdiscDrop()
	if err != nil {
		t.Fatal(err)
	}
	for r := range reasons {
		switch {
		case has && r.Subsystem != "qdisc":
			t.Errorf("reason %+v, want the qdisc's own", r)
		case !has && r.Subsystem == "qdisc":
			t.Errorf("reason %+v on a kernel without such", r)
		}
	}
	t.Logf("%d drops: %v", got, reasons)
}

// qdiscDrops reads the counter of the root qdisc of a device.
func qdiscDrops(t *testing.T, ns *netlab.Namespace, link netlink.Link) uint64 {
	t.Helper()
	list, err := ns.Links().QdiscList(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range list {
		if q.Type() == "tbf" && q.Attrs().Statistics != nil {
			return uint64(q.Attrs().Statistics.Queue.Drops)
		}
	}
	t.Fatalf("no tbf with statistics in %v", list)
	return 0
}
