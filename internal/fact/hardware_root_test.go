//go:build root

package fact

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// line is a line that ethtool prints: a heading, perhaps, a name and a value.
type line struct{ head, name, value string }

// ethtool runs ethtool in the namespace of the thread. ok is false where the
// kernel says that the device has no such thing.
func ethtool(t *testing.T, args ...string) (lines []line, ok bool) {
	t.Helper()
	out, ok := testkit.Ethtool(t, args...)
	if !ok {
		return nil, false
	}
	head := ""
	for text := range strings.Lines(out) {
		text = strings.TrimSuffix(text, "\n")
		name, value, found := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		// Two in a line: "Adaptive RX: off  TX: n/a".
		if first, rest, two := strings.Cut(value, "  TX:"); two {
			lines = append(lines, line{head, strings.TrimSpace(name), strings.TrimSpace(first)})
			name, value = strings.Replace(name, "RX", "TX", 1), strings.TrimSpace(rest)
		}
		switch {
		case !found || strings.TrimSpace(text) == "":
		case value == "":
			head = strings.TrimSpace(name)
		default:
			lines = append(lines, line{head, strings.TrimSpace(name), value})
		}
	}
	return lines, true
}

// rings is what ethtool calls what is a field of the fact.
var (
	ringNames = map[string]string{
		"RX": "rx", "RX Mini": "rx_mini", "RX Jumbo": "rx_jumbo", "TX": "tx", "RX Buf Len": "rx_buf_len", "CQE Size": "cqe_size",
		"TX Push": "tx_push", "RX Push": "rx_push", "TCP data split": "tcp_data_split", "TX push buff len": "tx_push_buf_len",
		"HDS thresh": "hds_thresh",
	}
	channelNames = map[string]string{"RX": "rx", "TX": "tx", "Other": "other", "Combined": "combined"}
	// The old names of ethtool for features that have one in the kernel too.
	featureNames = map[string]string{
		"rx-checksumming": "rx-checksum", "generic-segmentation-offload": "tx-generic-segmentation", "generic-receive-offload": "rx-gro",
		"large-receive-offload": "rx-lro", "rx-vlan-offload": "rx-vlan-hw-parse", "tx-vlan-offload": "tx-vlan-hw-insert",
		"ntuple-filters": "rx-ntuple-filter", "receive-hashing": "rx-hashing",
	}
	// notRead are lines of ethtool that whydrop has no field for, with the
	// reason.
	notRead = map[string]string{
		"expansion-rom-version":    "says nothing about packets",
		"supports-statistics":      "the statistics themselves are read",
		"supports-test":            "nothing is tested",
		"supports-eeprom-access":   "not read",
		"supports-register-dump":   "not read",
		"supports-priv-flags":      "private flags are not read",
		"tx-checksumming":          "ethtool's word for the five tx-checksum features",
		"scatter-gather":           "ethtool's word for two features",
		"tcp-segmentation-offload": "ethtool's word for five features",
		"PHYAD":                    "says nothing about packets",
		"Transceiver":              "says nothing about packets",
		"Current message level":    "what the driver logs",
		"MDI-X":                    "says nothing about packets",
	}
)

// same holds one line of ethtool against the fact.
func same(t *testing.T, f record.Fact, got fields, l line, field, want string) {
	t.Helper()
	switch want {
	case "n/a", "unknown!", "unknown! (255)":
		want = map[bool]string{true: "unknown"}[field == "speed" || field == "duplex"]
	case "on", "yes":
		want = "1"
	case "off", "no":
		want = "0"
	}
	if f.Fields[field] != want {
		t.Errorf("%s: %s is %q, ethtool says %+v", f.Name, field, f.Fields[field], l)
	}
	delete(got, field)
}

// compareEthtool holds the fact of a device against all that ethtool says, and
// says how many lines it compared.
func compareEthtool(t *testing.T, device string) (compared int) {
	t.Helper()
	f := one(t, "ethtool", device)
	got := fields{}
	for name, value := range f.Fields {
		got[name] = value
	}
	// field gives the field that a line is of, and its value.
	check := func(args []string, field func(l line) (name, want string)) {
		t.Helper()
		lines, _ := ethtool(t, append(args, device)...)
		for _, l := range lines {
			if notRead[l.name] != "" || strings.HasPrefix(l.name, "Supported ") || strings.HasPrefix(l.name, "Supports ") || strings.HasPrefix(l.name, "Advertised") || l.value == "" {
				continue
			}
			name, want := field(l)
			if name == "" {
				t.Errorf("%s: no field for what ethtool %v says: %+v", device, args, l)
				continue
			}
			same(t, f, got, l, name, want)
			compared++
		}
	}
	check([]string{"-i"}, func(l line) (string, string) {
		return map[string]string{"driver": "driver", "version": "version", "firmware-version": "firmware", "bus-info": "bus"}[l.name], l.value
	})
	check([]string{"-g"}, func(l line) (string, string) {
		name := ringNames[l.name]
		if name != "" && strings.HasPrefix(l.head, "Pre-set") {
			name += "_max"
		}
		return "ring_" + name, l.value
	})
	check([]string{"-l"}, func(l line) (string, string) {
		name := channelNames[l.name]
		if name != "" && strings.HasPrefix(l.head, "Pre-set") {
			name += "_max"
		}
		return "channels_" + name, l.value
	})
	check([]string{"-c"}, func(l line) (string, string) {
		name := strings.NewReplacer("frame-low", "frames_low", "frame-high", "frames_high", "-", "_", " ", "_").Replace(strings.ToLower(l.name))
		return "coalesce_" + name, l.value
	})
	check([]string{"-a"}, func(l line) (string, string) {
		return map[string]string{"Autonegotiate": "pause_autoneg", "RX": "pause_rx", "TX": "pause_tx"}[l.name], l.value
	})
	check([]string{"--show-fec"}, func(l line) (string, string) {
		field := map[string]string{"Supported/Configured FEC encodings": "fec", "Configured FEC encodings": "fec", "Active FEC encoding": "fec_active"}[l.name]
		return field, strings.ToLower(l.value)
	})
	check(nil, func(l line) (string, string) {
		field := map[string]string{
			"Speed": "speed", "Duplex": "duplex", "Auto-negotiation": "autoneg", "Port": "port", "Link detected": "link",
			"Lanes": "lanes", "SQI": "sqi",
		}[l.name]
		return field, strings.ToLower(strings.NewReplacer("Mb/s", "", "Twisted Pair", "tp", "Direct Attach Copper", "da").Replace(l.value))
	})
	compared += compareFeatures(t, f, got)
	for name, value := range got {
		switch name {
		case "version", "firmware", "bus", "driver": // ethtool prints them as empty lines
			if value == "" {
				continue
			}
		case "sqi_max", "link_down_count", "ntuple_rules", "ring_rx_push", "coalesce_rx_cqe_frames", "coalesce_rx_cqe_nsecs":
			continue // ethtool 6.1 does not print them
		}
		t.Errorf("%s: ethtool does not say that %s is %q", device, name, value)
	}
	return compared
}

// compareFeatures holds the features against ethtool -k.
func compareFeatures(t *testing.T, f record.Fact, got fields) (compared int) {
	t.Helper()
	lines, _ := ethtool(t, "-k", f.Name)
	for _, l := range lines {
		name := l.name
		if kernel := featureNames[name]; kernel != "" {
			name = kernel
		}
		if notRead[name] != "" {
			continue
		}
		state, more, _ := strings.Cut(l.value, " ")
		if want := strings.TrimSpace(state + " " + strings.Trim(more, "[]")); f.Fields[name] != want {
			t.Errorf("%s: %s is %q, ethtool says %+v", f.Name, name, f.Fields[name], l)
		}
		delete(got, name)
		compared++
	}
	return compared
}

// TestMatchesEthtool holds the fact of a veth, of loopback and of every device
// of the machine against ethtool. What a driver supports differs: veth has no
// rings, virtio_net has no error correction.
func TestMatchesEthtool(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		if compared := compareEthtool(t, "a0"); compared < 50 {
			t.Errorf("a0: only %d lines compared", compared)
		}
		f := facts(t, "ethtool", "a0")[0]
		for field, want := range map[string]string{"driver": "veth", "speed": "10000", "duplex": "full", "link": "1", "autoneg": "0", "rx-lro": "off fixed"} {
			if f.Fields[field] != want {
				t.Errorf("a0: %s is %q, want %q", field, f.Fields[field], want)
			}
		}
		// Something changed is seen.
		if out, err := exec.Command("ethtool", "-K", "a0", "gro", "on", "tso", "off").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f = facts(t, "ethtool", "a0")[0]
		if f.Fields["rx-gro"] != "on" || f.Fields["tx-tcp-segmentation"] != "off" {
			t.Errorf("after ethtool -K: %+v", f)
		}
		compareFeatures(t, f, fields{})
		if f := one(t, "ethtool", "none0"); f.Value != None {
			t.Errorf("no device: %+v", f)
		}
	})
	devices, err := net.Interfaces()
	must(t, err)
	for _, d := range devices {
		compareEthtool(t, d.Name)
	}
}

// TestRPSOfNamespace sets up queues of a device in a namespace of its own, whose
// /sys is mounted nowhere.
func TestRPSOfNamespace(t *testing.T) {
	mounts := func() string {
		b, err := os.ReadFile("/proc/thread-self/mountinfo")
		must(t, err)
		return string(b)
	}
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		before := mounts()
		set(t, "class/net/a0/queues/rx-0/rps_cpus", "1")
		set(t, "class/net/a0/queues/rx-0/rps_flow_cnt", "64")
		f := named(t, facts(t, "rps", "a0"), "rx-0")
		if f.Value != "0" || strings.TrimLeft(f.Fields["rps_cpus"], "0,") != "1" || f.Fields["rps_flow_cnt"] != "64" {
			t.Errorf("%+v", f)
		}
		tx := named(t, facts(t, "rps", "a0"), "tx-0")
		if tx.Fields["tx_timeout"] != "0" {
			t.Errorf("%+v", tx)
		}
		if f := named(t, facts(t, "rps", "lo"), "rx-0"); f.Value != None {
			t.Errorf("lo: %+v", f)
		}
		if f := one(t, "irqs", "a0"); f.Value != None {
			t.Errorf("interrupts of a veth: %+v", f)
		}
		for _, kind := range []string{"rps", "irqs"} {
			if f := one(t, kind, "none0"); f.Value != None {
				t.Errorf("%s: %+v", kind, f)
			}
		}
		if after := mounts(); after != before {
			t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
		}
		// Without the capability it is said that it is missing, and not the
		// host's device of that name shown.
		lacking(t, unix.CAP_SYS_ADMIN, func() {
			for _, device := range []string{"a0", "lo", "eth0"} {
				got := (&Reader{}).Read(record.FactRequest{Kind: "rps", Arg: device}, ns)
				if len(got) != 1 || !strings.Contains(got[0].Missing, "CAP_SYS_ADMIN") {
					t.Errorf("%s without the capability: %+v", device, got)
				}
			}
		})
	})
	// In the namespace of /sys it is not needed.
	testkit.NeedRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lacking(t, unix.CAP_SYS_ADMIN, func() {
			if f := named(t, facts(t, "rps", "lo"), "rx-0"); f.Fields["rps_flow_cnt"] == "" {
				t.Errorf("%+v", f)
			}
		})
	}()
	<-done
}

// set writes a file of /sys of the thread's namespace.
func set(t *testing.T, file, value string) {
	t.Helper()
	fd, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.FsconfigCreate(fd))
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(mount)
	f, err := unix.Openat(mount, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(f)
	_, err = unix.Write(f, []byte(value))
	must(t, err)
}

// lacking runs fn on this thread, which then ends, without a capability.
func lacking(t *testing.T, capability uint, fn func()) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&header, &data[0]))
	less := data
	less[capability/32].Effective &^= 1 << (capability % 32)
	must(t, unix.Capset(&header, &less[0]))
	defer func() { must(t, unix.Capset(&header, &data[0])) }()
	fn()
}

// TestIRQsOfMachine holds the interrupts of the machine's devices against what
// the kernel says of each in another place.
func TestIRQsOfMachine(t *testing.T) {
	devices, err := net.Interfaces()
	must(t, err)
	for _, d := range devices {
		for _, f := range facts(t, "irqs", d.Name) {
			if f.Value == None {
				continue
			}
			dir := "/sys/kernel/irq/" + f.Name + "/"
			actions, err := os.ReadFile(dir + "actions")
			must(t, err)
			if got := strings.ReplaceAll(f.Fields["name"], ", ", ","); got != strings.TrimSpace(string(actions)) {
				t.Errorf("%s: interrupt %s is of %q, sysfs says %q", d.Name, f.Name, got, actions)
			}
			counts, err := os.ReadFile(dir + "per_cpu_count")
			must(t, err)
			for cpu, count := range strings.Split(strings.TrimSpace(string(counts)), ",") {
				got, _ := strconv.ParseUint(f.Fields["cpu"+strconv.Itoa(cpu)], 10, 64)
				now, err := strconv.ParseUint(count, 10, 64)
				must(t, err)
				// It goes on counting.
				if got > now || now-got > 10000 {
					t.Errorf("%s: interrupt %s came %d times to processor %d, sysfs says %d", d.Name, f.Name, got, cpu, now)
				}
			}
			affinity, err := os.ReadFile("/proc/irq/" + f.Name + "/smp_affinity_list")
			must(t, err)
			if f.Fields["affinity"] != strings.TrimSpace(string(affinity)) {
				t.Errorf("%s: interrupt %s: affinity %q, want %q", d.Name, f.Name, f.Fields["affinity"], affinity)
			}
		}
	}
}
