package counter

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

func nicOf(index uint32, name, bus string, irqs ...uint64) nic {
	n := nic{Device: record.Device{Index: index, Name: name}, bus: bus, irqs: map[uint64]bool{}}
	for _, irq := range irqs {
		n.irqs[irq] = true
	}
	return n
}

// said lists interrupts in the form "eth0 irq 38 cpu 1: 5".
func said(values []Value) string {
	var b strings.Builder
	for _, v := range values {
		fmt.Fprintf(&b, "%s %s: %d\n", v.Device.Name, v.Object, v.Value)
	}
	return b.String()
}

func TestParseInterrupts(t *testing.T) {
	for _, c := range []struct {
		name, sample string
		nics         []nic
		want         string
	}{
		{
			"vectors of its own", "reconstructed-interrupts/x86",
			[]nic{nicOf(2, "eth1", "0000:03:00.0", 120, 121, 122, 123, 124), nicOf(3, "eth10", "0000:05:00.0", 140)},
			"eth1 : 10003\neth10 : 4294967295\neth1 irq 120 cpu 0: 1000\neth1 irq 121 cpu 1: 2000\neth1 irq 122 cpu 2: 3000\n" +
				"eth1 irq 123 cpu 3: 4000\neth1 irq 124 cpu 2: 3\neth10 irq 140 cpu 3: 4294967295\n",
		},
		{
			"a card that two devices share", "reconstructed-interrupts/x86",
			[]nic{nicOf(2, "ens1", "0000:5e:00.0", 130, 131, 132), nicOf(3, "ens1_0", "0000:5e:00.0", 130, 131, 132)},
			"ens1 : 38\nens1_0 : 0\nens1 irq 130 cpu 1: 7\nens1 irq 130 cpu 3: 9\nens1 irq 131 cpu 1: 7\nens1 irq 131 cpu 3: 10\nens1 irq 132 cpu 2: 5\n",
		},
		{
			"two devices of a card, one is named", "reconstructed-interrupts/x86",
			[]nic{nicOf(2, "eth0", "0000:03:00.0", 120, 121), nicOf(3, "eth1", "0000:03:00.0", 120, 121)},
			"eth0 : 0\neth1 : 3000\neth1 irq 120 cpu 0: 1000\neth1 irq 121 cpu 1: 2000\n",
		},
		{
			"a line that is shared with others", "reconstructed-interrupts/x86",
			[]nic{nicOf(2, "eth4", "0000:00:1d.0")},
			"eth4 : 10\neth4 irq 16 cpu 1: 10\n",
		},
		{
			"by the name of the machine's device", "reconstructed-interrupts/arm64",
			[]nic{nicOf(2, "eth0", "30be0000.ethernet")},
			"eth0 : 4723\neth0 irq 33 cpu 0: 4711\neth0 irq 33 cpu 1: 12\n",
		},
		{
			"a name within another's", "reconstructed-interrupts/x86",
			[]nic{nicOf(2, "eth", "0000:00:1d.0"), nicOf(3, "eth0", "mlx")},
			"eth : 0\neth0 : 0\n",
		},
		{
			"virtio", "6.18/interrupts",
			[]nic{nicOf(4, "eth0", "virtio2", 37, 38, 39)},
			"eth0 : 74966\neth0 irq 38 cpu 1: 41776\neth0 irq 39 cpu 0: 33190\n",
		},
		{"a machine without any", "7.2/interrupts", []nic{nicOf(4, "eth0", "virtio2", 37)}, "eth0 : 0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseInterrupts(load(t, "proc/"+c.sample), c.nics)
			if err != nil {
				t.Fatal(err)
			}
			wellFormed(t, values, interruptsSource)
			if diff := cmp.Diff(c.want, said(values)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseInterruptsEdges(t *testing.T) {
	nics := []nic{nicOf(2, "eth0", "x", 7)}
	head := " CPU0 CPU3\n"
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "eth0 : 0\n", ""},
		{"no heading", "7: 1 2 eth0\n", "", "names no CPU"},
		{"a CPU that is offline", head + "7: 0 2 eth0\n", "eth0 : 2\neth0 irq 7 cpu 3: 2\n", ""},
		{"fewer numbers", head + "7: 1\n8: 1 1 eth0\n7: 5 0\n", "eth0 : 5\neth0 irq 7 cpu 0: 5\n", "2 CPUs but 1 numbers"},
		{"a word", head + "7: 1 x eth0\n", "eth0 : 0\n", "no number of 32 bits"},
		{"too large", head + "7: 1 4294967296 eth0\n", "eth0 : 0\n", "no number of 32 bits"},
		{"letters", head + "NMI: x y\nERR: 0\n", "eth0 : 0\n", ""},
		{"cut off", head + "7: 1 2\n7: 1 23", "eth0 : 3\neth0 irq 7 cpu 0: 1\neth0 irq 7 cpu 3: 2\n", "cut off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseInterrupts([]byte(c.text), nics)
			check(t, nil, err, "", c.wantErr)
			if diff := cmp.Diff(c.want, said(values)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestManyVectors: what is left out is in the sums, and said.
func TestManyVectors(t *testing.T) {
	text := "CPU0\n" + strings.Repeat("7: 1 eth0\n", maxVectors+2)
	values, err := parseInterrupts([]byte(text), []nic{nicOf(2, "eth0", "x", 7)})
	check(t, nil, err, "", "2 numbers of a vector on a CPU are only in the sums")
	if len(values) != maxVectors+1 || values[0].Value != maxVectors+2 {
		t.Errorf("%d values, %+v", len(values), values[0])
	}
}

// TestReadNICs reads a /sys with a PCI device, one that virtio has on such a
// device, and one that the kernel made itself.
func TestReadNICs(t *testing.T) {
	sys := t.TempDir()
	device := func(name, index, path string, irqs ...string) {
		t.Helper()
		home := filepath.Join(sys, "class/net", name)
		if err := os.MkdirAll(home, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, "ifindex"), []byte(index+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if path == "" {
			return
		}
		if err := os.MkdirAll(filepath.Join(sys, "devices", path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(sys, "devices", path), filepath.Join(home, "device")); err != nil {
			t.Fatal(err)
		}
		for _, irq := range irqs {
			if err := os.MkdirAll(filepath.Join(sys, "devices", irq), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	device("lo", "1", "")
	device("eth1", "5", "pci0000:00/0000:03:00.0", "pci0000:00/0000:03:00.0/msi_irqs/40", "pci0000:00/0000:03:00.0/msi_irqs/41")
	device("eth0", "3", "pci0000:00/0000:00:03.0/virtio2", "pci0000:00/0000:00:03.0/msi_irqs/37", "pci0000:00/0000:00:03.0/msi_irqs/x")
	device("eth2", "x", "pci0000:00/0000:04:00.0")
	device("usb0", "7", "pci0000:00/usb1/1-1/1-1:1.0")
	got, err := readNICs(sys)
	if err != nil {
		t.Fatal(err)
	}
	want := []nic{nicOf(3, "eth0", "virtio2", 37), nicOf(5, "eth1", "0000:03:00.0", 40, 41), nicOf(7, "usb0", "1-1:1.0")}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(nic{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := readNICs(filepath.Join(sys, "none")); len(got) > 0 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzParseInterrupts(f *testing.F) {
	for _, name := range []string{"5.10/interrupts", "6.18/interrupts", "reconstructed-interrupts/x86", "reconstructed-interrupts/arm64"} {
		f.Add(load(f, "proc/"+name))
	}
	f.Add([]byte("CPU1 CPU1\n37: 1 2\n"))
	nics := []nic{nicOf(4, "eth0", "virtio2", 37, 38, 39), nicOf(5, "eth1", "0000:5e:00.0")}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, _ := parseInterrupts(text, nics)
		wellFormed(t, values, interruptsSource)
		sums, parts := map[string]uint64{}, map[string]uint64{}
		for _, v := range values {
			if v.Object == "" {
				sums[v.Device.Name] += v.Value
			} else {
				parts[v.Device.Name] += v.Value
			}
		}
		for name, sum := range sums {
			if sum != parts[name] && len(values) <= maxVectors {
				t.Errorf("%s: %d, its parts are %d", name, sum, parts[name])
			}
		}
	})
}
