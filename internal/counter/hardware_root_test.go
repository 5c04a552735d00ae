//go:build root

package counter

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// ethtoolSays runs ethtool in the namespace of the thread and gives the lines
// of a name and a number, in their order. It gives none where the device has
// no such thing.
func ethtoolSays(t *testing.T, args ...string) (names []string, values []uint64) {
	t.Helper()
	out, ok := testkit.Ethtool(t, args...)
	if !ok {
		return nil, nil
	}
	for line := range strings.Lines(out) {
		i := strings.LastIndex(line, ": ")
		if i < 0 {
			continue
		}
		v, err := strconv.ParseUint(strings.TrimSpace(line[i+2:]), 10, 64)
		if err != nil {
			continue // a heading, or a setting
		}
		names, values = append(names, strings.TrimSpace(line[:i])), append(values, v)
	}
	return names, values
}

// numberOf is how a veth, an ifb and virtio_net write the number of a queue:
// rx_queue_0_drops, and rx0_drops since 6.8.
var numberOf = regexp.MustCompile(`^(rx|tx)(_queue_|)([0-9]+)_(.*)$`)

// partOf is what whydrop should call a statistic.
func partOf(s string) (name, object string) {
	m := numberOf.FindStringSubmatch(s)
	if m == nil {
		return s, ""
	}
	return strings.TrimSuffix(m[1]+m[2], "_") + "_" + m[4], "queue " + m[1] + "-" + m[3]
}

// readings are values by name and object.
func readings(t *testing.T, s Snapshot, device uint32, tables ...string) map[string]uint64 {
	t.Helper()
	m := map[string]uint64{}
	for _, v := range s.Values {
		for _, table := range tables {
			if v.Device.Index != device || !strings.HasPrefix(v.Name, table+".") {
				continue
			}
			id := v.Name + "|" + v.Object
			if _, twice := m[id]; twice {
				t.Errorf("%s is there twice", id)
			}
			m[id] = v.Value
		}
	}
	return m
}

// hardwareOf reads all that drivers say in the thread's namespace.
func hardwareOf(t *testing.T) Snapshot {
	t.Helper()
	s := readNetNS()
	for _, b := range s.Missing {
		if strings.Contains(b.What, "ethtool") || strings.Contains(b.What, "ETHTOOL") || strings.Contains(b.What, "devlink") || strings.Contains(b.What, "generic") {
			t.Errorf("missing: %+v", b)
		}
	}
	return s
}

// within holds that a number lies between those of a read before and after it:
// devices in use count on.
func within(t *testing.T, what string, before, after map[string]uint64, id string, v uint64) {
	t.Helper()
	low, ok := before[id]
	high, still := after[id]
	if !ok || !still || v < low || v > high {
		t.Errorf("%s: %s is %d and then %d (%v, %v), ethtool says %d", what, id, low, high, ok, still, v)
	}
	delete(before, id)
	delete(after, id)
}

// compareStatistics holds the statistics of a device against ethtool, and says
// how many it compared.
func compareStatistics(t *testing.T, d record.Device) (compared int) {
	t.Helper()
	s := hardwareOf(t)
	before := readings(t, s, d.Index, "ethtool")
	names, values := ethtoolSays(t, "-S", d.Name)
	after := readings(t, hardwareOf(t), d.Index, "ethtool")
	sums, wholes := map[string]uint64{}, map[string]bool{}
	for i, text := range names {
		name, object := partOf(text)
		if object == "" {
			wholes[name] = true
		} else {
			sums[name] += values[i]
		}
		within(t, d.Name, before, after, "ethtool."+name+"|"+object, values[i])
		compared++
	}
	for name, sum := range sums {
		if !wholes[name] {
			within(t, d.Name, before, after, "ethtool."+name+"|", sum)
		}
	}
	if len(before) > 0 || len(after) > 0 {
		t.Errorf("%s: ethtool does not say: %v", d.Name, before)
	}
	return compared + compareGroups(t, d) + compareMore(t, d)
}

// groupLine is how ethtool prints what is in the groups: eth-mac-LateCollisions,
// and rx-rmon-etherStatsPkts65to127Octets.
var groupLine = regexp.MustCompile(`^(?:(rx|tx)-)?(eth-phy|eth-mac|eth-ctrl|rmon|phydev)-(.*)$`)

// compareGroups holds the groups of the standards against ethtool.
func compareGroups(t *testing.T, d record.Device) (compared int) {
	t.Helper()
	tables := []string{"eth-phy", "eth-mac", "eth-ctrl", "rmon"} // those that ethtool 6.1 knows
	before := readings(t, hardwareOf(t), d.Index, tables...)
	names, values := ethtoolSays(t, "-S", d.Name, "--all-groups")
	after := readings(t, hardwareOf(t), d.Index, tables...)
	for i, text := range names {
		m := groupLine.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("%s: what is %q?", d.Name, text)
			continue
		}
		field := m[3]
		if m[1] != "" {
			field = m[1] + "-" + field
		}
		within(t, d.Name, before, after, m[2]+"."+field+"|", values[i])
		compared++
	}
	if len(before) > 0 || len(after) > 0 {
		t.Errorf("%s: ethtool does not say: %v", d.Name, before)
	}
	return compared
}

// compareMore holds the statistics of pause frames and of error correction
// against ethtool.
func compareMore(t *testing.T, d record.Device) (compared int) {
	t.Helper()
	for table, option := range map[string]string{"pause": "-a", "fec": "--show-fec"} {
		before := readings(t, hardwareOf(t), d.Index, table)
		names, values := ethtoolSays(t, "-I", option, d.Name)
		after := readings(t, hardwareOf(t), d.Index, table)
		whole := ""
		for i, text := range names {
			id := table + "." + text + "|"
			if lane, ok := strings.CutPrefix(text, "Lane "); ok {
				id = table + "." + whole + "|lane " + lane
			} else {
				whole = text
			}
			within(t, d.Name, before, after, id, values[i])
			compared++
		}
		if len(before) > 0 || len(after) > 0 {
			t.Errorf("%s: ethtool %s does not say: %v", d.Name, option, before)
		}
	}
	return compared
}

// TestMatchesEthtoolStatistics holds the statistics of a veth with traffic and
// of every device of the machine against ethtool.
func TestMatchesEthtoolStatistics(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		_, index := pair(t, ns, "host0")
		send(t, "192.0.2.2:9", 20)
		if compared := compareStatistics(t, record.Device{Index: index, Name: "host0"}); compared < 10 {
			t.Errorf("veth: only %d compared", compared)
		}
		for _, v := range hardwareOf(t).Values {
			if v.Name == "ethtool.peer_ifindex" && (!v.Level || v.Value == 0 || v.Source != driverSource || v.Command != "ethtool -S host0") {
				t.Errorf("%+v", v)
			}
		}
	})
	// In a goroutine of its own, on a thread in the machine's namespace.
	s := hardwareOf(t)
	for _, d := range s.devices() {
		t.Logf("%s: %d compared", d.Name, compareStatistics(t, d))
	}
}

// TestStatisticsOfGoneDevice: a device that goes during the read, or gets
// another name, is no error, and nobody's numbers are taken for its.
func TestStatisticsOfGoneDevice(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		_, index := pair(t, ns, "host0")
		e, err := openEthtool()
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		link, err := ns.Links().LinkByName("host0")
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Links().LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
		if err := ns.Links().LinkSetName(link, "other0"); err != nil {
			t.Fatal(err)
		}
		values, err := e.device(nil, record.Device{Index: index, Name: "host0"})
		if err != nil || len(values) == 0 || values[0].Device.Name != "other0" {
			t.Errorf("renamed: %+v, %v", values, err)
		}
		if err := ns.Links().LinkDel(link); err != nil {
			t.Fatal(err)
		}
		if values, err := e.device(nil, record.Device{Index: index, Name: "host0"}); len(values) > 0 || err != nil {
			t.Errorf("gone: %+v, %v", values, err)
		}
	})
}

// TestEthtoolMemoryEnds: where a driver writes more than was made ready for, the
// kernel finds no memory there, and the program goes on.
func TestEthtoolMemoryEnds(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		pair(t, ns, "host0")
		e, err := openEthtool()
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		counts, err := e.counts("host0", setStats)
		if err != nil || counts[setStats] == 0 {
			t.Fatal(counts, err)
		}
		whole := e.mem
		// As if there were room for the head alone.
		e.mem = whole[len(e.data())-12:]
		copy(e.mem[:12], words(unix.ETHTOOL_GSTRINGS, setStats, 0))
		err = e.call("host0")
		e.mem = whole
		if !errors.Is(err, unix.EFAULT) {
			t.Errorf("beyond the end: %v", err)
		}
		if values, err := e.deviceNamed(nil, record.Device{Index: 1, Name: "host0"}); err != nil || len(values) < counts[setStats] {
			t.Errorf("afterwards: %d values, %v", len(values), err)
		}
	})
}
