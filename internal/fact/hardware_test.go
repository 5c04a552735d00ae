package fact

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

// hostTree makes the files of a host below a new folder. A text that begins with
// "-> " is a link.
func hostTree(t *testing.T, files map[string]string) *Reader {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		at := filepath.Join(root, name)
		noErr(t, os.MkdirAll(filepath.Dir(at), 0o755))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			noErr(t, os.Symlink(target, at))
			continue
		}
		noErr(t, os.WriteFile(at, []byte(content), 0o644))
	}
	return &Reader{root: root}
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// interrupts is /proc/interrupts of a guest with virtio on 6.18, without most
// lines.
const interrupts = `           CPU0       CPU1       CPU3
 24:          1          0          0  IO-APIC   5-edge      ACPI:Ged
 37:          0          0          0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config
 38:          0      32291          7 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
 39:      26643          0          0 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0
 51:          5          6          7  IR-PCI-MSI 524288-edge      ens1f0-TxRx-0
 52:          1          1          1  IR-PCI-MSI 524289-edge      ens1f0
 53:          1          1          1  IR-PCI-MSI 524290-edge      ens1f01-TxRx-0
 16:          9          9          9  IO-APIC  16-fasteoi   ehci_hcd:usb1, eth7
NMI:          0          0          0   Non-maskable interrupts
ERR:          0
`

func host(t *testing.T) *Reader {
	t.Helper()
	return hostTree(t, map[string]string{
		"proc/interrupts":                                                   interrupts,
		"proc/irq/38/smp_affinity_list":                                     "0-3\n",
		"proc/irq/38/effective_affinity_list":                               "1\n",
		"proc/irq/39/smp_affinity_list":                                     "0\n",
		"sys/class/net/eth0":                                                "-> ../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0",
		"sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/device":       "-> ../../../virtio2",
		"sys/devices/pci0000:00/0000:00:03.0/msi_irqs/37":                   "msix\n",
		"sys/devices/pci0000:00/0000:00:03.0/msi_irqs/38":                   "msix\n",
		"sys/devices/pci0000:00/0000:00:03.0/msi_irqs/39":                   "msix\n",
		"sys/devices/pci0000:00/0000:00:03.0/irq":                           "11\n",
		"sys/devices/pci0000:00/0000:00:03.0/virtio2/vendor":                "0x1af4\n",
		"sys/devices/pci0000:00/msi_irqs/24":                                "msi\n", // a bridge above
		"sys/class/net/ens1f0":                                              "-> ../../devices/pci0000:00/0000:01:00.0/net/ens1f0",
		"sys/devices/pci0000:00/0000:01:00.0/net/ens1f0/device":             "-> ../../../0000:01:00.0",
		"sys/devices/pci0000:00/0000:01:00.0/irq":                           "0\n",
		"sys/devices/pci0000:00/0000:01:00.0/msi_irqs/51":                   "msix\n",
		"sys/devices/pci0000:00/0000:01:00.0/msi_irqs/53":                   "msix\n",
		"sys/class/net/old0":                                                "-> ../../devices/pci0000:00/0000:02:00.0/net/old0",
		"sys/devices/pci0000:00/0000:02:00.0/net/old0/device":               "-> ../../../0000:02:00.0",
		"sys/devices/pci0000:00/0000:02:00.0/irq":                           "16\n",
		"sys/class/net/off0":                                                "-> ../../devices/pci0000:00/0000:03:00.0/net/off0",
		"sys/devices/pci0000:00/0000:03:00.0/net/off0/device":               "-> ../../../0000:03:00.0",
		"sys/devices/pci0000:00/0000:03:00.0/irq":                           "0\n",
		"sys/class/net/veth0/ifindex":                                       "7\n",
		"sys/class/net/veth0/address":                                       "02:00:00:00:00:01\n",
		"sys/class/net/veth0/queues/rx-0/rps_cpus":                          "00000000,0000000f\n",
		"sys/class/net/veth0/queues/rx-0/rps_flow_cnt":                      "4096\n",
		"sys/class/net/veth0/queues/rx-10/rps_cpus":                         "0\n",
		"sys/class/net/veth0/queues/rx-2/rps_cpus":                          "00000001,80000001\n",
		"sys/class/net/veth0/queues/tx-0/tx_timeout":                        "3\n",
		"sys/class/net/veth0/queues/tx-0/xps_cpus":                          "2\n",
		"sys/class/net/veth0/queues/tx-0/byte_queue_limits/limit":           "5421\n",
		"sys/class/net/veth0/queues/tx-0/byte_queue_limits/inflight":        "90\n",
		"sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/queues/other": "",
	})
}

func request(t *testing.T, r *Reader, kind, arg string) []record.Fact {
	t.Helper()
	return r.Read(record.FactRequest{Kind: kind, Arg: arg}, ns)
}

func TestIRQs(t *testing.T) {
	r := host(t)
	got := request(t, r, "irqs", "eth0")
	if len(got) != 3 || got[0].Name != "37" || got[0].Value != "" || got[0].Fields["total"] != "0" {
		t.Fatalf("%+v", got)
	}
	want := fields{
		"name": "virtio2-input.0", "how": "PCI-MSIX-0000:00:03.0 1-edge", "total": "32298", "cpu1": "32291", "cpu3": "7",
		"affinity": "0-3", "effective": "1",
	}
	if d := gocmp.Diff(want, got[1].Fields); d != "" || got[1].Value != "1" || got[1].Name != "38" {
		t.Errorf("%+v: %s", got[1], d)
	}
	if got[2].Value != "0" || got[2].Fields["effective"] != "" {
		t.Errorf("%+v", got[2])
	}
	for _, tt := range []struct{ device, want string }{
		{"ens1f0", "51 52"}, // those that name it, not all of the hardware
		{"old0", "16"},
		{"off0", "none"},
		{"veth0", "none"},
		{"none0", "none"},
	} {
		var names []string
		for _, f := range request(t, r, "irqs", tt.device) {
			switch {
			case f.Missing != "":
				t.Errorf("%s: %s", tt.device, f.Missing)
			case f.Value == None:
				names = append(names, None)
			default:
				names = append(names, f.Name)
			}
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.device, got, tt.want)
		}
	}
}

func TestNamesDevice(t *testing.T) {
	for actions, want := range map[string]bool{
		"eth0": true, "eth0-TxRx-3": true, "mlx5_comp1@eth0": true, "usb1, eth0": true, "ahci, eth0, i801": true,
		"eth01": false, "veth0": false, "eth0.5": false, "eth": false, "": false, "eth00 eth0": true,
	} {
		if namesDevice(actions, "eth0") != want {
			t.Errorf("%q: want %v", actions, want)
		}
	}
}

func TestParseInterruptsBad(t *testing.T) {
	for _, text := range []string{"", "CPU0 what\n", "\n", "CPU0 CPU1\n 1: 5\n", "CPU0\n 1: x y\n"} {
		if _, some, err := parseInterrupts(strings.NewReader(text), func(irq) bool { return true }); err == nil {
			t.Errorf("%q: %v", text, some)
		}
	}
}

func FuzzParseInterrupts(f *testing.F) {
	f.Add(interrupts)
	f.Add("CPU0 CPU1\n 1: 5 6")
	f.Add("CPU0\n1:1  a  b\n 2:1\n")
	f.Fuzz(func(t *testing.T, text string) {
		cpus, some, err := parseInterrupts(strings.NewReader(text), func(irq) bool { return true })
		for _, i := range some {
			if len(i.counts) != len(cpus) || err == nil && i.number == "" {
				t.Errorf("%d processors, %+v", len(cpus), i)
			}
			namesDevice(i.actions, "eth0")
		}
	})
}

func TestRPS(t *testing.T) {
	r := host(t)
	got := request(t, r, "rps", "veth0")
	var names []string
	for _, f := range got {
		names = append(names, f.Name+" "+f.Value)
	}
	if want := []string{"rx-0 0-3", "rx-2 0,31-32", "rx-10 none", "tx-0 1"}; !slices.Equal(names, want) {
		t.Fatalf("%q, want %q", names, want)
	}
	if d := gocmp.Diff(fields{"rps_cpus": "00000000,0000000f", "rps_flow_cnt": "4096"}, got[0].Fields); d != "" {
		t.Error(d)
	}
	if d := gocmp.Diff(fields{"xps_cpus": "2", "tx_timeout": "3", "limit": "5421", "inflight": "90"}, got[3].Fields); d != "" {
		t.Error(d)
	}
	if got := request(t, r, "rps", "none0"); len(got) != 1 || got[0].Value != None {
		t.Errorf("%+v", got)
	}
}

func TestCPUList(t *testing.T) {
	for mask, want := range map[string]string{
		"0": "none", "00000000,00000000": "none", "1": "0", "f": "0-3", "5": "0,2", "00000001,00000000": "32", "80000000,00000001": "0,63",
		"ffffffff,ffffffff": "0-63", "": "", "x": "x", "1,": "1,", "100000000": "100000000",
	} {
		if got := cpuList(mask); got != want {
			t.Errorf("%q: %q, want %q", mask, got, want)
		}
	}
}

// TestSysfsOfAnother: a view that shows other devices than the namespace has is
// not taken for the namespace's.
func TestSysfsOfAnother(t *testing.T) {
	r := host(t)
	s, err := r.sys()
	noErr(t, err)
	defer s.close()
	if same, err := s.same(); same || err != nil {
		t.Errorf("%v, %v", same, err)
	}
	if _, err := (&Reader{root: filepath.Join(r.root, "nothing")}).sys(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// bit set of ethtool, with or without a mask.
func bitset(mask bool, bits map[string]bool) []byte {
	var list message
	for _, name := range slices.Sorted(maps.Keys(bits)) {
		bit := message{}.Attr(unix.ETHTOOL_A_BITSET_BIT_INDEX, native.AppendUint32(nil, 1)).Text(unix.ETHTOOL_A_BITSET_BIT_NAME, name)
		if mask && bits[name] {
			bit = bit.Attr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil)
		}
		if mask || bits[name] {
			list = list.Attr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, bit)
		}
	}
	var b message
	if !mask {
		b = b.Attr(unix.ETHTOOL_A_BITSET_NOMASK, nil)
	}
	return b.Attr(unix.ETHTOOL_A_BITSET_SIZE, native.AppendUint32(nil, 64)).Attr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, list)
}

func featuresAnswer() message {
	all := func(on ...string) map[string]bool {
		m := map[string]bool{"rx-gro": false, "highdma": false, "rx-lro": false, "loopback": false}
		for _, name := range on {
			m[name] = true
		}
		return m
	}
	m := message{}.Attr(2|unix.NLA_F_NESTED, bitset(true, all("rx-gro", "rx-lro", "loopback")))
	m = m.Attr(3|unix.NLA_F_NESTED, bitset(false, all("rx-gro", "rx-lro")))
	m = m.Attr(4|unix.NLA_F_NESTED, bitset(false, all("rx-gro", "highdma")))
	return m.Attr(5|unix.NLA_F_NESTED, bitset(true, all("loopback")))
}

func TestParseFeatures(t *testing.T) {
	got := fields{}
	noErr(t, parseFeatures(featuresAnswer(), got))
	want := fields{"rx-gro": "on", "highdma": "on fixed", "rx-lro": "off requested on", "loopback": "off fixed"}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestParseEthtool holds the numbers of attributes to those of the kernel's
// header, for what no device of the tests has.
func TestParseEthtool(t *testing.T) {
	u := func(v uint32) []byte { return native.AppendUint32(nil, v) }
	answers := map[string]message{
		"port":       message{}.Attr(2, []byte{3}),
		"speed":      message{}.Attr(2, []byte{1}).Attr(5, u(25000)).Attr(6, []byte{1}).Attr(9, u(4)),
		"ring sizes": message{}.Attr(2, u(4096)).Attr(6, u(512)).Attr(9, u(1024)).Attr(11, []byte{2}).Attr(18, u(77)),
		"channels":   message{}.Attr(5, u(64)).Attr(9, u(8)),
		"coalescing": message{}.Attr(2, u(50)).Attr(11, []byte{1}).Attr(23, u(9)).Attr(25, []byte{1}).Attr(28, u(6)).Attr(32, u(5)),
		"pause":      message{}.Attr(2, []byte{0}).Attr(3, []byte{1}).Attr(4, []byte{1}),
	}
	got := fields{}
	for _, q := range ethtoolQuestions() {
		noErr(t, decode(answers[q.what], 0, q.params, q.prefix, got))
	}
	want := fields{
		"port": "fibre", "autoneg": "1", "speed": "25000", "duplex": "full", "lanes": "4",
		"ring_rx_max": "4096", "ring_rx": "512", "ring_tx": "1024", "ring_tcp_data_split": "on", "ring_hds_thresh_max": "77",
		"channels_combined_max": "64", "channels_combined": "8",
		"coalesce_rx_usecs": "50", "coalesce_adaptive_rx": "1", "coalesce_sample_interval": "9", "coalesce_cqe_mode_rx": "1",
		"coalesce_tx_aggr_time_usecs": "6", "coalesce_rx_cqe_nsecs": "5",
		"pause_autoneg": "0", "pause_rx": "1", "pause_tx": "1",
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := fecNames(1<<0 | 1<<3 | 1<<4); got != "none rs baser" {
		t.Errorf("FEC %q", got)
	}
}

func FuzzParseFeatures(f *testing.F) {
	f.Add([]byte(featuresAnswer()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := fields{}
		_ = parseFeatures(b, got)
		for _, state := range got {
			if !strings.HasPrefix(state, "on") && !strings.HasPrefix(state, "off") {
				t.Errorf("%q", state)
			}
		}
		for _, q := range ethtoolQuestions() {
			_ = decode(b, 0, q.params, q.prefix, got)
		}
	})
}
