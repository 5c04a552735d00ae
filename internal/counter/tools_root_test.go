//go:build root

package counter

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// The tests of this file compare with other programs, which read the same
// numbers by code of their own, in a namespace where nothing happens meanwhile.

// program runs a program in the namespace of the calling thread.
func program(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	if err := testkit.Iproute2(name); err != nil {
		t.Fatalf("%v (apt-get install iproute2; make test does)", err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "NSTAT_HISTORY="+filepath.Join(t.TempDir(), "history"), "LC_ALL=C")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return out
}

func TestMatchesIPLink(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		pair(t, ns, "host0")
		closedPort(t, 20)
		var list []struct {
			Ifindex uint32
			Ifname  string
			Stats64 map[string]map[string]uint64
		}
		values := read(t).Values
		if err := json.Unmarshal(program(t, "ip", "-s", "-s", "-j", "link"), &list); err != nil {
			t.Fatal(err)
		}
		compared := 0
		for _, l := range list {
			for side, stats := range l.Stats64 {
				for key, want := range stats {
					name := side + "_" + key
					switch key {
					case "multicast", "collisions", "carrier_changes":
						name = key
					case "nohandler", "otherhost":
						name = map[string]string{"nohandler": "rx_nohandler", "otherhost": "rx_otherhost_dropped"}[key]
					}
					if got := deviceValue(t, values, "link."+name, l.Ifindex); got != want {
						t.Errorf("%s: %s is %d, ip says %d", l.Ifname, name, got, want)
					}
					compared++
				}
			}
		}
		if compared < 40 {
			t.Errorf("only %d compared", compared)
		}
	})
}

func TestMatchesTC(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		_, index := pair(t, ns, "host0")
		if err := ns.Links().QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: int(index), Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       1, Buffer: netlink.Xmittime(1, 100), Limit: 200, // a byte a second: nothing passes meanwhile
		}); err != nil {
			t.Fatal(err)
		}
		send(t, "192.0.2.2:9", 50)
		values := read(t).Values
		var list []struct {
			Dev                                         string
			Kind                                        string
			Bytes, Packets, Drops, Requeues, Overlimits uint64
		}
		if err := json.Unmarshal(program(t, "tc", "-s", "-j", "qdisc", "show", "dev", "host0"), &list); err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 || list[0].Kind != "tbf" || list[0].Drops == 0 {
			t.Fatalf("tc says %+v", list)
		}
		for name, want := range map[string]uint64{
			"qdisc.bytes": list[0].Bytes, "qdisc.packets": list[0].Packets, "qdisc.drops": list[0].Drops,
			"qdisc.requeues": list[0].Requeues, "qdisc.overlimits": list[0].Overlimits,
		} {
			if got := deviceValue(t, values, name, index); got != want {
				t.Errorf("%s is %d, tc says %d", name, got, want)
			}
		}
	})
}
