//go:build root

package counter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// readProc reads what the thread's namespace has in /proc alone.
func readProc(t *testing.T) Snapshot {
	t.Helper()
	s := Snapshot{Time: time.Now()}
	s.readFiles(thread, netnsFiles())
	s.readDevSNMP6()
	s.readStats()
	if len(s.Missing) > 0 {
		t.Fatalf("missing: %+v", s.Missing)
	}
	return s
}

// traffic makes some of many kinds: UDP and TCP, of both families, to closed
// ports and open ones, over a veth and over loopback. Nothing is under way when
// it returns.
func traffic(t *testing.T, ns *netlab.Namespace) {
	t.Helper()
	pair(t, ns, "host0")
	send(t, "127.0.0.1:9", 20)
	if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
		c.Close()
		t.Fatal("a connection to a closed port")
	}
	if err := sendUDP6(20); err != nil {
		t.Fatal(err)
	}
	send(t, "192.0.2.2:9", 7)
	send(t, "192.0.2.77:9", 2) // nobody answers
	quiet(t)
}

// sendUDP6 sends n datagrams to a closed port of the thread's loopback.
func sendUDP6(n int) error {
	// The devices of a new namespace have no IPv6 where the host's have none.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("0"), 0); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range n {
		if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet6{Port: 9, Addr: [16]byte{15: 1}}); err != nil {
			return err
		}
	}
	return nil
}

// quiet waits until nothing moves in the thread's namespace.
func quiet(t *testing.T) {
	t.Helper()
	var before string
	eventually(t, func() string {
		s := readProc(t)
		var b bytes.Buffer
		for _, v := range s.Values {
			if v.Source == "/proc/net/snmp" || v.Source == "/proc/net/snmp6" || v.Source == "/proc/net/netstat" {
				fmt.Fprintln(&b, v.Name, v.Value)
			}
		}
		if now := b.String(); now != before {
			before = now
			return "traffic goes on"
		}
		return ""
	})
}

// TestMatchesNstatJSON compares all that nstat knows, by its JSON. There is no
// name that it has and whydrop has not.
func TestMatchesNstatJSON(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		traffic(t, ns)
		var values []Value
		var want map[string]uint64
		eventually(t, func() string {
			before := readProc(t).Values
			var out struct{ Kernel map[string]uint64 }
			if err := json.Unmarshal(program(t, "nstat", "-az", "-j"), &out); err != nil {
				t.Fatal(err)
			}
			// In the same instant: nothing moved while nstat read.
			values, want = readProc(t).Values, out.Kernel
			return differ(before, values, "nstat ")
		})
		compared, above0, levels := 0, 0, 0
		for _, v := range values {
			if !strings.HasPrefix(v.Command, "nstat ") {
				continue
			}
			name := strings.Replace(v.Name, ".", "", 1)
			if got, ok := want[name]; !ok || got != v.Value {
				t.Errorf("%s is %d, nstat says %d (%v)", v.Name, v.Value, got, ok)
			}
			if v.Command != "nstat -az "+name {
				t.Errorf("%s: command %q", v.Name, v.Command)
			}
			delete(want, name)
			compared++
			if v.Value > 0 {
				above0++
			}
			if v.Level {
				levels++
			}
		}
		if len(want) > 0 {
			t.Errorf("nstat has more: %v", want)
		}
		if compared < 200 || above0 < 20 {
			t.Errorf("%d compared, %d above 0, %d levels", compared, above0, levels)
		}
		// What nstat leaves out as useless is there as well (iproute2,
		// misc/nstat.c).
		for _, name := range strings.Fields("Ip.Forwarding Ip.DefaultTTL Tcp.RtoAlgorithm Tcp.RtoMin Tcp.RtoMax Tcp.CurrEstab") {
			value(t, values, name)
		}
	})
}

// differ says which of the values with such a command are not the same.
func differ(a, b []Value, command string) string {
	was := map[string]uint64{}
	for _, v := range a {
		was[v.Name+v.Object] = v.Value
	}
	for _, v := range b {
		if old, ok := was[v.Name+v.Object]; strings.HasPrefix(v.Command, command) && (!ok || old != v.Value) {
			return fmt.Sprintf("%s went from %d to %d", v.Name, old, v.Value)
		}
	}
	return ""
}

// TestMatchesLnstat compares the files of /proc/net/stat. The neighbours' exist
// in the first namespace alone, which is not quiet: lnstat must be between two
// reads.
func TestMatchesLnstat(t *testing.T) {
	above0 := 0
	for _, table := range []string{"rt_cache", "arp_cache", "ndisc_cache"} {
		t.Run(table, func(t *testing.T) {
			before := ReadHost().Values
			var want map[string]uint64
			if err := json.Unmarshal(lnstatOf(t, table), &want); err != nil {
				t.Fatal(err)
			}
			after := ReadHost().Values
			for field, n := range want {
				name := table + "." + field
				low, high := value(t, before, name), value(t, after, name)
				if field == "entries" {
					low, high = min(low, high), max(low, high) // a level
				}
				if n < low || n > high {
					t.Errorf("%s: lnstat says %d, before it was %d, afterwards %d", name, n, low, high)
				}
				if n > 0 {
					above0++
				}
			}
			for _, v := range after {
				if f, ok := strings.CutPrefix(v.Name, table+"."); ok && want[f] == 0 && v.Value > 0 && value(t, before, v.Name) > 0 {
					t.Errorf("lnstat has no %s", v.Name)
				}
			}
			if len(want) < 12 {
				t.Errorf("lnstat says %v", want)
			}
		})
	}
	if above0 < 3 {
		t.Errorf("only %d above 0", above0)
	}
}

// lnstatOf runs lnstat of iproute2, which does not say whose it is.
func lnstatOf(t *testing.T, table string) []byte {
	t.Helper()
	cmd := exec.Command("lnstat", "-c1", "-i1", "-j", "-f", table)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	// It always ends with 1.
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("lnstat: %v (apt-get install iproute2; make test does)", err)
	}
	return out
}

// TestMatchesDev compares the numbers of rtnetlink with /proc/net/dev, where
// some are sums (net/core/net-procfs.c, dev_seq_printf_stats).
func TestMatchesDev(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		traffic(t, ns)
		sums := map[string][]string{
			"rx_drop":    {"rx_dropped", "rx_missed_errors"},
			"rx_frame":   {"rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors"},
			"tx_carrier": {"tx_carrier_errors", "tx_aborted_errors", "tx_window_errors", "tx_heartbeat_errors"},
		}
		s := Snapshot{}
		s.readFiles(thread, []file{{name: "dev", scan: scanDev}})
		var links Snapshot
		links.readDevices()
		values := links.Values
		if len(s.Values) != 2*len(devFields) || len(s.Missing) > 0 {
			t.Fatalf("%v, missing %+v", s.Values, s.Missing)
		}
		above0 := 0
		for _, v := range s.Values {
			device, field, _ := strings.Cut(v.Name, ".")
			fields, ok := sums[field]
			if !ok {
				fields = []string{field}
			}
			var sum uint64
			for _, f := range fields {
				sum += deviceValue(t, values, "link."+f, deviceIndex(t, ns, device))
			}
			if sum != v.Value {
				t.Errorf("%s is %d, rtnetlink says %d", v.Name, v.Value, sum)
			}
			if sum > 0 {
				above0++
			}
		}
		if above0 < 8 {
			t.Errorf("only %d above 0", above0)
		}
	})
}

// TestMatchesFiles reads the files that no tool shows in whole the simple way,
// between two reads.
func TestMatchesFiles(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		traffic(t, ns)
		for _, name := range []string{"sockstat", "sockstat6", "xfrm_stat", "sctp/snmp", "tls_stat"} {
			path := filepath.Join(thread, name)
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				continue // of a module, or not built
			}
			eventually(t, func() string {
				source := "/proc/net/" + name
				before := readProc(t).Values
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				after := readProc(t).Values
				for _, values := range [][]Value{before, after} {
					var got []string
					for _, v := range values {
						if v.Source == source {
							got = append(got, strings.Replace(v.Name, ".", "", 1)+" "+strconv.FormatUint(v.Value, 10))
						}
					}
					want := plainly(string(text), strings.Replace(name, "/", "_", 1))
					if len(want) == 0 || strings.Join(got, "\n") != strings.Join(want, "\n") {
						return fmt.Sprintf("%s: %v, want %v", name, got, want)
					}
				}
				return ""
			})
		}
	})
}

// TestSoftirqsOfCPUs: a CPU that takes packets is counted on that CPU, and the
// parts are the sums.
func TestSoftirqsOfCPUs(t *testing.T) {
	runtime.LockOSThread() // not unlocked: the thread stays on its CPU and ends with it
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !set.IsSet(cpu) {
		cpu++
	}
	set.Zero()
	set.Set(cpu)
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
		before := ReadHost()
		const n = 500
		send(t, "127.0.0.1:9", n)
		got := Diff(before, ReadHost(), record.NetNS{})
		object := fmt.Sprintf("cpu %d", cpu)
		for name, least := range map[string]uint64{"softirqs.NET_RX": 1, "softnet.processed": n} {
			var total, part, sum uint64
			for _, c := range got {
				switch {
				case c.Name != name:
				case c.Object == "":
					total = c.Delta
				default:
					sum += c.Delta
					if c.Object == object {
						part = c.Delta
					}
				}
			}
			// Kernels before 5.10 do not say which CPU a line is of, which is
			// then known by those that are online.
			if part < least || sum != total {
				return fmt.Errorf("%s of %s grew by %d, want at least %d; the total by %d, all parts by %d", name, object, part, least, total, sum)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDevSNMP6OfDevice: a datagram over IPv6 is counted at its device.
func TestDevSNMP6OfDevice(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		_, index := pair(t, ns, "host0")
		before := readProc(t)
		const n = 9
		if err := sendUDP6(n); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			got := Diff(before, readProc(t), record.NetNS{})
			lo, all := find(t, got, "dev_snmp6.Ip6InReceives", 1), find(t, got, "Ip6.InReceives", 0)
			// Each has an ICMPv6 answer as far as those are not limited.
			if lo.Delta < n || lo.Delta > all.Delta || lo.Device.Name != "lo" {
				return fmt.Sprintf("%+v, of all %+v", lo, all)
			}
			for _, c := range got {
				if c.Name == "dev_snmp6.Icmp6InDestUnreachs" && c.Device.Index == index {
					return fmt.Sprintf("%+v is of the wrong device", c)
				}
			}
			return ""
		})
	})
}

// TestNICs: the devices that the machine has are those with a device in /sys.
func TestNICs(t *testing.T) {
	nics, err := readNICs("/sys")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil || len(paths) != len(nics) {
		t.Errorf("%d devices %+v, want %v (%v)", len(nics), nics, paths, err)
	}
	s := ReadHost()
	for _, n := range nics {
		deviceValue(t, s.Values, "interrupts.count", n.Index)
	}
}

// TestReaderKeepsNamespace: the files of a Reader stay those of the namespace
// that it was first used in, and its numbers are those of a single read.
func TestReaderKeepsNamespace(t *testing.T) {
	r := NewReader()
	defer r.Close()
	var s Snapshot
	testkit.InNetNS(t, func(*netlab.Namespace) {
		r.Read(&s)
		if got := value(t, s.Values, "Udp.NoPorts"); got != 0 {
			t.Errorf("NoPorts is %d in a new namespace", got)
		}
		send(t, "127.0.0.1:9", 11)
		quiet(t)
		r.Read(&s)
		if got := value(t, s.Values, "Udp.NoPorts"); got != 11 {
			t.Errorf("NoPorts is %d, want 11", got)
		}
		eventually(t, func() string {
			r.Read(&s)
			once := readNetNS()
			if len(s.Missing) != len(once.Missing) || len(s.Values) != len(once.Values) {
				return fmt.Sprintf("%d values, a single read has %d; missing %+v", len(s.Values), len(once.Values), s.Missing)
			}
			return differ(once.Values, s.Values, "nstat ")
		})
	})
	var files Snapshot
	r.files.read(&files)
	if got := value(t, files.Values, "Udp.NoPorts"); got != 11 {
		t.Errorf("outside NoPorts is %d, want 11", got)
	}
}
