package kernel

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

func TestParseVersion(t *testing.T) {
	for release, want := range map[string]Version{
		"6.18.44-fc-v595":         {6, 18, 44},
		"6.1.0-50-cloud-amd64":    {6, 1, 0},
		"5.14.0-427.13.1.el9_4":   {5, 14, 0},
		"7.2":                     {7, 2, 0},
		"7.2-rc3":                 {7, 2, 0},
		"5.10.223+":               {5, 10, 223},
		"4.19.0.1":                {4, 19, 0},
		"2.6.32-754.el6.x86_64":   {2, 6, 32},
		"5.4.0-1.2.3":             {5, 4, 0},
		"6.6.87.2-microsoft-WSL2": {6, 6, 87},
	} {
		if got, err := ParseVersion(release); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", release, got, err, want)
		}
	}
	for _, release := range []string{"", "6", "6.", "linux", ".6.1", "6..1", "99999.1"} {
		if got, err := ParseVersion(release); err == nil {
			t.Errorf("%q: %v, want an error", release, got)
		}
	}
	v := Version{6, 1, 9}
	for _, c := range []struct {
		major, minor int
		want         bool
	}{{6, 1, true}, {6, 0, true}, {5, 19, true}, {6, 2, false}, {7, 0, false}} {
		if got := v.AtLeast(c.major, c.minor); got != c.want {
			t.Errorf("%v.AtLeast(%d, %d) = %v", v, c.major, c.minor, got)
		}
	}
}

func TestParseCPUList(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-1": 2, "0-3,8-11": 8, "0,2,4": 3, "0-511": 512} {
		if got, err := parseCPUList(list); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", list, got, err, want)
		}
	}
	for _, list := range []string{"", "0-", "-1", "3-1", "0-3,", "0-99999999", "a"} {
		if got, err := parseCPUList(list); err == nil {
			t.Errorf("%q: %d, want an error", list, got)
		}
	}
}

func TestIdentity(t *testing.T) {
	h := fakeHost(t, map[string]string{
		"/proc/sys/kernel/hostname":        "edge-7\n",
		"/proc/sys/kernel/random/boot_id":  "cf46a422-6346-4bbb-b579-c7f49077c9fe\n",
		"/proc/sys/kernel/osrelease":       "6.1.0-50-cloud-amd64\n",
		"/proc/sys/kernel/version":         "#1 SMP PREEMPT_DYNAMIC Debian\n",
		"/sys/devices/system/cpu/possible": "0-3\n",
	})
	host, kern, err := h.Identity()
	if err != nil {
		t.Fatal(err)
	}
	wantHost := record.Host{Hostname: "edge-7", BootID: "cf46a422-6346-4bbb-b579-c7f49077c9fe", CPUs: 4}
	if diff := cmp.Diff(wantHost, host); diff != "" {
		t.Error(diff)
	}
	wantKernel := record.Kernel{Release: "6.1.0-50-cloud-amd64", Version: "#1 SMP PREEMPT_DYNAMIC Debian", Machine: kern.Machine}
	if diff := cmp.Diff(wantKernel, kern); diff != "" || kern.Machine == "" {
		t.Errorf("machine %q: %s", kern.Machine, diff)
	}
	if err := os.Remove(h.path("/proc/sys/kernel/random/boot_id")); err != nil {
		t.Fatal(err)
	}
	host, _, err = h.Identity()
	if err == nil || !strings.Contains(err.Error(), "boot_id") || host.Hostname != "edge-7" {
		t.Errorf("without a boot id: %+v, %v", host, err)
	}
}

// TestClockOffset adds the offset to the monotonic clock and compares with the
// wall clock.
func TestClockOffset(t *testing.T) {
	offset, err := ClockOffset()
	if err != nil {
		t.Fatal(err)
	}
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		t.Fatal(err)
	}
	wall := time.Unix(0, mono.Nano()+int64(offset))
	if d := time.Since(wall).Abs(); d > time.Second {
		t.Errorf("wall clock is off by %v", d)
	}
}

func TestFindMount(t *testing.T) {
	for fstype, want := range map[string]string{
		"tracefs": "/sys/kernel/my tracing",
		"sysfs":   "/sys",
		"bpf":     "",
	} {
		if got := findMount(mounts, fstype); got != want {
			t.Errorf("%s: %q, want %q", fstype, got, want)
		}
	}
	for in, want := range map[string]string{`a\040b\011`: "a b\t", `a\`: `a\`, `a\04`: `a\04`, `a\999`: `a\999`} {
		if got := unescapeMount(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzHostFiles feeds the readers of small files of /proc and /sys.
func FuzzHostFiles(f *testing.F) {
	for _, s := range []string{
		"6.18.44-fc-v595", "0-3,8-11", mounts, "Name:\twhydrop\nCapEff:\t000001fffeffffff\n",
		"none [integrity] confidentiality", "CONFIG_NET=y\n# CONFIG_NET_DROP_MONITOR is not set\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseVersion(s); err == nil && (v.Major < 0 || !v.AtLeast(v.Major, v.Minor)) {
			t.Errorf("version %v", v)
		}
		if n, err := parseCPUList(s); err == nil && n < 1 {
			t.Errorf("%d CPUs", n)
		}
		if at := findMount(s, "tracefs"); len(at) > len(s) {
			t.Errorf("mount %q", at)
		}
		if caps, err := parseCapEff(s); err != nil && caps != 0 && caps != 1<<64-1 {
			t.Errorf("capabilities %x beside error %v", caps, err)
		}
		if mode := lockdownMode(s); strings.Contains(mode, "]") {
			t.Errorf("mode %q", mode)
		}
		if value, err := findOption(strings.NewReader(s), "CONFIG_NET"); err == nil && strings.Contains(value, "\n") {
			t.Errorf("option %q", value)
		}
	})
}
