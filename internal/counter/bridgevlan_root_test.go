//go:build root

package counter

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// TestMatchesBridgeVLAN compares the counters of each VLAN of a bridge and of
// its ports.
func TestMatchesBridgeVLAN(t *testing.T) {
	testkit.NeedConfig(t, "CONFIG_BRIDGE_VLAN_FILTERING")
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		batch(t, "ip", append(veths("va", "vb"),
			"link add br0 up type bridge vlan_filtering 1 vlan_stats_enabled 1 vlan_stats_per_port 1",
			"link set va master br0", "link set vb master br0"))
		for _, args := range []string{"dev va vid 10", "dev vb vid 10", "dev va vid 20-22", "dev br0 vid 10 self"} {
			bridgeTool(t, append([]string{"vlan", "add"}, strings.Fields(args)...)...)
		}
		tagged := func(vid byte) []byte {
			return append(append(etherHead(0x8100), 0, vid), append([]byte{8, 0}, udpFrame(0, 1, 40)[14:]...)...)
		}
		sendFrames(t, deviceIndex(t, ns, "vap"), 5, tagged(10))
		sendFrames(t, deviceIndex(t, ns, "vap"), 3, tagged(21))
		sendFrames(t, deviceIndex(t, ns, "vap"), 2, tagged(30)) // dropped: no such VLAN
		sendFrames(t, deviceIndex(t, ns, "vbp"), 4, udpFrame(0, 1, 40))
		eventually(t, func() string {
			m, out := around(t, func() []byte { return bridgeTool(t, "-s", "-j", "vlan", "show") })
			for _, s := range readShown(t, out) {
				index := deviceIndex(t, ns, s.text("ifname"))
				for _, f := range s {
					rest, ok := strings.CutPrefix(f.path, "vlans.")
					number, key, _ := strings.Cut(rest, ".")
					if !f.number || !ok || key == "vid" || strings.HasPrefix(key, "flags.") {
						continue // the name, and no statistics
					}
					m.same(ident{index, "bridge_vlan." + key, "vlan " + s.text("vlans."+number+".vid")}, f.text, 0)
				}
			}
			if t.Failed() {
				return ""
			}
			// Ports count what they have taken; vb had no tag, which is VLAN 1. What
			// the bridge hands to the host it has sent.
			for _, want := range []struct {
				device, name string
				vlan, value  uint64
			}{
				{"va", "rx_packets", 10, 5},
				{"va", "rx_packets", 21, 3},
				{"vb", "tx_packets", 10, 5},
				{"br0", "tx_packets", 10, 5},
				{"vb", "rx_packets", 1, 4},
			} {
				id := ident{deviceIndex(t, ns, want.device), "bridge_vlan." + want.name, "vlan " + strconv.FormatUint(want.vlan, 10)}
				if m.after[id] != want.value || !m.used[id] {
					return strings.Join([]string{want.device, id.name, id.object, "is", strconv.FormatUint(m.after[id], 10)}, " ")
				}
			}
			return ""
		})
	})
}

// bridgeTool runs bridge of iproute2, which alone of its programs does not
// say so in its version.
func bridgeTool(t *testing.T, args ...string) []byte {
	t.Helper()
	if version, err := exec.Command("bridge", "-V").CombinedOutput(); err != nil || !strings.HasPrefix(string(version), "bridge utility, ") {
		t.Fatalf("bridge is not the one of iproute2 (apt-get install iproute2; make test does): %v %s", err, version)
	}
	cmd := exec.Command("bridge", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bridge %v: %v", args, err)
	}
	return out
}
