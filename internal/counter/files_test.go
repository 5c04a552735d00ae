package counter

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "stat"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"snmp":              "Udp: NoPorts\nUdp: 7\n",
		"snmp6":             "Udp6NoPorts 8\nUdp6InErrors nine\n",
		"stat/nf_conntrack": "entries drop\n1 a\n1 b\n",
		"xfrm_stat":         strings.Repeat("XfrmInError 1\n", maxFile/10),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var s Snapshot
	newFileSet(dir, dir, append(netnsFiles(), hostFiles()...)).read(&s)
	want := "Udp.NoPorts\t7\t/proc/net/snmp\tnstat -az UdpNoPorts\n" +
		"Udp6.NoPorts\t8\t/proc/net/snmp6\tnstat -az Udp6NoPorts\n" +
		"nf_conntrack.entries\t1\tlevel\t/proc/net/stat/nf_conntrack\tconntrack -S\n" +
		"nf_conntrack.drop\t21\t/proc/net/stat/nf_conntrack\tconntrack -S\n"
	if diff := cmp.Diff(want, string(listing(s.Values))); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	// netstat, softnet_stat, rt_cache and ndisc_cache do not exist, and that
	// is all: the kernel does not have them.
	var missing []string
	for _, m := range s.Missing {
		missing = append(missing, m.What+": "+m.Why)
	}
	wantMissing := []string{
		`counters of /proc/net/snmp6: parse /proc/net/snmp6: counter "Udp6.InErrors": strconv.ParseUint: parsing "nine": invalid syntax`,
		"counters of /proc/net/xfrm_stat: read xfrm_stat: longer than 4194304 bytes",
		"counters of /proc/net/stat/arp_cache: it is in the initial network namespace alone, and this is another",
	}
	if diff := cmp.Diff(wantMissing, missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

// TestReadFilesWithoutProcfs: a procfs that is not there, or shows another PID
// namespace, is not a kernel without counters.
func TestReadFilesWithoutProcfs(t *testing.T) {
	var s Snapshot
	s.readFiles(filepath.Join(t.TempDir(), "thread-self/net"), netnsFiles())
	if len(s.Values) != 0 || len(s.Missing) != len(netnsFiles()) {
		t.Errorf("%d values, missing %v", len(s.Values), s.Missing)
	}
}

func TestReadFilesUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "snmp"), 0o755); err != nil { // reads as an error
		t.Fatal(err)
	}
	var s Snapshot
	s.readFiles(dir, netnsFiles())
	if len(s.Values) != 0 || len(s.Missing) != 1 || !strings.Contains(s.Missing[0].Why, "is a directory") {
		t.Errorf("%d values, missing %v", len(s.Values), s.Missing)
	}
}

// TestReadFilesAgain reads files that change, go, and come back.
func TestReadFilesAgain(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("snmp", "Udp: NoPorts\nUdp: 7\n")
	set := newFileSet(dir, dir, netnsFiles()[:3])
	defer set.close()
	for _, step := range []struct {
		change  func()
		want    string
		missing int
	}{
		{func() {}, "Udp.NoPorts 7", 0},
		{func() { write("snmp", "Udp: NoPorts\nUdp: 18\n") }, "Udp.NoPorts 18", 0},
		{func() { write("snmp", "Udp: New NoPorts\nUdp: 1 19\n") }, "Udp.New 1, Udp.NoPorts 19", 0},
		{func() { write("snmp6", "Udp6NoPorts 2\n") }, "Udp.New 1, Udp.NoPorts 19, Udp6.NoPorts 2", 0},
		{func() { write("snmp6", "Udp6NoPorts x\n") }, "Udp.New 1, Udp.NoPorts 19", 1},
		{func() { write("snmp", strings.Repeat("\n", 40<<10)+"Udp: NoPorts\nUdp: 20\n") }, "Udp.NoPorts 20", 1},
	} {
		step.change()
		var s Snapshot
		set.read(&s)
		check(t, s.Values, nil, step.want, "")
		if len(s.Missing) != step.missing {
			t.Errorf("missing: %+v", s.Missing)
		}
	}
	// A file that cannot be read any more is looked for anew, as one of a
	// module that was taken out and put in.
	set.files[0].f.Close()
	var s Snapshot
	set.read(&s)
	check(t, s.Values, nil, "Udp.NoPorts 20", "")
	set.files[0].f.Close()
	if err := os.Remove(filepath.Join(dir, "snmp")); err != nil {
		t.Fatal(err)
	}
	s = Snapshot{}
	set.read(&s)
	if len(s.Values) != 0 || len(s.Missing) != 1 {
		t.Errorf("%v, missing %+v", s.Values, s.Missing)
	}
}

// TestReadStats reads what else is in /proc/net/stat.
func TestReadStats(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "stat"), 0o755); err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	s.readStatsIn(dir)
	for _, name := range []string{"rt_cache", "arp_cache", "ndisc_cache", "nf_conntrack", "ip_conntrack", "synproxy", "nf_flowtable", "clip_arp_cache", "new"} {
		if err := os.WriteFile(filepath.Join(dir, "stat", name), []byte("entries a\n3 10\n3 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.readStatsIn(dir)
	check(t, s.Values, nil, "clip_arp_cache.entries 3, clip_arp_cache.a 17, new.entries 3, new.a 17", "")
	s.readStatsIn(filepath.Join(dir, "none"))
	if len(s.Missing) != 0 {
		t.Errorf("missing: %+v", s.Missing)
	}
}

func TestReadDevSNMP6(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"eth0": "ifIndex \t2\nIp6InReceives\t5\nIp6InDiscards\t0\nIcmp6InType136 7\n",
		"lo":   "ifIndex 1\nIp6OutRequests 8\n",
		"odd":  "Ip6OutRequests 8\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var s Snapshot
	s.readDevSNMP6In(dir)
	source := "\t/proc/net/dev_snmp6\tcat /proc/net/dev_snmp6/"
	want := "dev_snmp6.Ip6InReceives\t5\t2 eth0" + source + "eth0\n" +
		"dev_snmp6.Icmp6InType136\t7\t2 eth0" + source + "eth0\n" +
		"dev_snmp6.Ip6OutRequests\t8\t1 lo" + source + "lo\n"
	if diff := cmp.Diff(want, string(listing(s.Values))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(s.Missing) != 1 || !strings.Contains(s.Missing[0].Why, `device "odd": line "Ip6OutRequests 8" is not its index`) {
		t.Errorf("missing: %+v", s.Missing)
	}
	s = Snapshot{}
	s.readDevSNMP6In(filepath.Join(dir, "none"))
	if len(s.Values)+len(s.Missing) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestManyDevices: a device more than are read is said.
func TestManyDevices(t *testing.T) {
	dir := t.TempDir()
	for i := range maxSNMP6Devices + 9 {
		text := fmt.Sprintf("ifIndex %d\nIp6InReceives 1\n", i+1)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("eth%d", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := Snapshot{Time: time.Unix(1, 0)}
	s.readDevSNMP6In(dir)
	if len(s.Values) != maxSNMP6Devices || len(s.Missing) != 1 || s.whole(devSNMP6Source) {
		t.Errorf("%d values, missing %+v", len(s.Values), s.Missing)
	}
}

// TestDevSNMP6Fixtures: the file of a device has what the namespace's has, but
// for UDP.
func TestDevSNMP6Fixtures(t *testing.T) {
	paths, err := filepath.Glob("testdata/proc/*/dev_snmp6-*")
	if err != nil || len(paths) < 8 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		values, err := parseDevSNMP6(text, "eth0")
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		above0 := 0
		for _, line := range strings.Split(string(text), "\n")[1:] {
			if f := strings.Fields(line); len(f) == 2 && f[1] != "0" {
				above0++
				if v, _ := find1(values, Value{Name: "dev_snmp6." + f[0]}); strconv.FormatUint(v.Value, 10) != f[1] {
					t.Errorf("%s: %s is %d, want %s", path, f[0], v.Value, f[1])
				}
			}
		}
		if len(values) != above0 {
			t.Errorf("%s: %d values, want %d", path, len(values), above0)
		}
	}
}

// TestDiffOfHidden: what is there only above 0 began at 0 if the file was read
// before.
func TestDiffOfHidden(t *testing.T) {
	lo := record.Device{Index: 1, Name: "lo"}
	known := Value{Name: "link.rx_packets", Device: lo, Source: linkSource}
	for _, v := range []Value{
		{Name: "dev_snmp6.Ip6InDiscards", Device: lo, Value: 10, Source: devSNMP6Source},
		{Name: "interrupts.count", Device: lo, Object: "irq 7 cpu 1", Value: 10, Source: interruptsSource},
	} {
		before, after := snapshot(known), snapshot(known, v)
		if got := Diff(before, after, record.NetNS{})[1]; got.Before != 0 || got.Delta != 10 {
			t.Errorf("%+v", got)
		}
		before.miss(v.Source, os.ErrPermission)
		if got := Diff(before, after, record.NetNS{})[1]; got.Before != 10 || got.Delta != 0 {
			t.Errorf("not read before: %+v", got)
		}
	}
}
