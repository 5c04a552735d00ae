package counter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// hardwareListing writes values for a person and a golden file.
func hardwareListing(values []Value) []byte {
	var b bytes.Buffer
	for _, v := range values {
		fmt.Fprintf(&b, "%s\t%s\t%d %s\t%d\t%s\n", v.Name, v.Object, v.Device.Index, v.Device.Name, v.Value, v.Command)
	}
	return b.Bytes()
}

// netdevsim reads messages of testdata/netdevsim.
func netdevsim(t testing.TB, name string) [][]byte {
	return loadMessages(t, "netdevsim/"+name+"-6.1.hex")
}

// devlinkFiles are the answers to the questions.
var devlinkFiles = []string{"devlink-trap", "devlink-group", "devlink-policer", "devlink-health"}

func TestParseDevlinkSample(t *testing.T) {
	var s Snapshot
	for i, q := range devlinkQuestions() {
		s.addDevlink(q, netdevsim(t, devlinkFiles[i]), nil)
	}
	if len(s.Missing) > 0 {
		t.Errorf("missing: %+v", s.Missing)
	}
	testkit.Golden(t, "testdata/netdevsim/devlink.golden", hardwareListing(s.Values))
	for _, file := range []string{"devlink-get", "devlink-port"} {
		for _, m := range netdevsim(t, file) {
			a, err := parseDevlink(m)
			if err != nil || a.handle() != "netdevsim/netdevsim1" || a.hasPort != (file == "devlink-port") {
				t.Errorf("%s: %+v, %v", file, a, err)
			}
			if a.hasPort && !slices.Contains([]record.Device{{Index: 2, Name: "eth0"}, {Index: 3, Name: "eth1"}}, a.netdev) {
				t.Errorf("port %s is %+v", a.port(), a.netdev)
			}
		}
	}
}

// reporter makes an answer about a port's reporter.
func reporter(port uint32, errs uint64) []byte {
	return join(
		attr(unix.DEVLINK_ATTR_BUS_NAME, []byte("pci\x00")), attr(unix.DEVLINK_ATTR_DEV_NAME, []byte("0000:03:00.0\x00")),
		attr(unix.DEVLINK_ATTR_PORT_INDEX, words(port)),
		attr(unix.DEVLINK_ATTR_HEALTH_REPORTER, join(
			attr(unix.DEVLINK_ATTR_HEALTH_REPORTER_NAME, []byte("tx\x00")), attr(unix.DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT, longs(errs)))))
}

// TestDevlinkPorts: what a driver says of a port is of the port's device, and
// the sum is of none.
func TestDevlinkPorts(t *testing.T) {
	q := devlinkQuestions()[3]
	var s Snapshot
	s.addDevlink(q, [][]byte{reporter(1, 4), reporter(2, 5)}, map[string]record.Device{"pci/0000:03:00.0/1": eth0})
	want := []Value{
		{Name: "devlink-health.err_count", Device: eth0, Object: "reporter pci/0000:03:00.0/1 tx", Value: 4, Source: q.source, Command: "devlink health show pci/0000:03:00.0/1 reporter tx"},
		{Name: "devlink-health.err_count", Object: "reporter pci/0000:03:00.0/2 tx", Value: 5, Source: q.source, Command: "devlink health show pci/0000:03:00.0/2 reporter tx"},
		{Name: "devlink-health.err_count", Value: 9, Source: q.source, Command: "devlink health"},
	}
	if !slices.Equal(s.Values, want) || len(s.Missing) > 0 {
		t.Errorf("%+v\nwant %+v, missing %+v", s.Values, want, s.Missing)
	}
}

// TestDevlinkUnknown keeps what a later kernel may add, and refuses what names
// no device.
func TestDevlinkUnknown(t *testing.T) {
	trap := join(
		attr(unix.DEVLINK_ATTR_BUS_NAME, []byte("pci\x00")), attr(unix.DEVLINK_ATTR_DEV_NAME, []byte("1\x00")),
		attr(unix.DEVLINK_ATTR_TRAP_NAME, []byte("new\x00")), attr(unix.DEVLINK_ATTR_TRAP_TYPE, []byte{9}),
		attr(unix.DEVLINK_ATTR_STATS, join(attr(0, longs(1)), attr(7, longs(8)))))
	q := devlinkQuestions()[0]
	var s Snapshot
	s.addDevlink(q, [][]byte{trap, {1, 2, 3}, attr(unix.DEVLINK_ATTR_BUS_NAME, []byte("pci\x00"))}, nil)
	if len(s.Values) != 4 || s.Values[0].Name != "devlink-trap-9.rx_packets" || s.Values[1].Name != "devlink-trap-9.stat_7" || s.Values[1].Value != 8 {
		t.Errorf("%+v", s.Values)
	}
	if len(s.Missing) != 1 || !strings.Contains(s.Missing[0].Why, "too short") || !strings.Contains(s.Missing[0].Why, "names no device") {
		t.Errorf("missing: %+v", s.Missing)
	}
}

func FuzzParseDevlink(f *testing.F) {
	for _, file := range append(slices.Clone(devlinkFiles), "devlink-port", "devlink-get") {
		for _, m := range netdevsim(f, file) {
			f.Add(m)
		}
	}
	f.Add(reporter(1, 4))
	f.Fuzz(func(t *testing.T, m []byte) {
		for _, q := range devlinkQuestions() {
			var s Snapshot
			s.addDevlink(q, [][]byte{m, m}, map[string]record.Device{"a/b/1": eth0})
			wellFormed(t, s.Values, q.source)
			if len(s.Values) > len(m) {
				t.Errorf("%d values of %d bytes", len(s.Values), len(m))
			}
		}
	})
}
