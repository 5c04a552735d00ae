package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	allCapabilities = "Name:\twhydrop\nCapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffffff\n"
	noCapabilities  = "Name:\twhydrop\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
)

// fullBTF is vmlinux BTF in which every check finds what it looks for.
func fullBTF() string {
	w := newVmlinux()
	w.tracepoint("kfree_skb", 4)
	w.qdiscDrop(false)
	w.trapReport("devlink_trap_metadata")
	w.xdpTracepoints("bpf_prog", xdpActions72...)
	w.enum("skb_drop_reason", core72)
	w.enum("skb_drop_reason_subsys", subsystems72)
	u64 := w.add("u64", 1, 0, 8, 64)
	w.add("bpf_prog_info", 4, 1, 8, w.str("recursion_misses"), u64, 0)
	proto := w.add("", 13, 0, 0)
	w.add("bpf_prog_inc_misses_counter", 12, 0, proto)
	return string(w.bytes())
}

// fullFiles are the files of a host that allows everything.
func fullFiles() map[string]string {
	return map[string]string{
		vmlinuxBTF:                              fullBTF(),
		"/proc/kallsyms":                        "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\nffffffff81000010 t net_dm_cmd_trace\t[drop_monitor]\n",
		"/proc/modules":                         "drop_monitor 28672 0 - Live 0xffffffffc0100000\n",
		"/proc/self/mounts":                     "tracefs /sys/kernel/tracing tracefs rw 0 0\n",
		"/proc/thread-self/status":              allCapabilities,
		"/proc/sys/kernel/cap_last_cap":         "40\n",
		"/proc/sys/kernel/osrelease":            "6.18.0\n",
		"/proc/sys/kernel/kptr_restrict":        "1\n",
		"/proc/sys/net/core/somaxconn":          "4096\n",
		"/sys/kernel/security/lockdown":         "[none] integrity confidentiality\n",
		"/proc/sys/kernel/tainted":              "0\n",
		"/proc/sys/net/core/rmem_max":           "212992\n",
		"/run/netns/blue":                       "",
		"/proc/sys/net/core/netdev_max_backlog": "1000\n",

		"/proc/sys/kernel/perf_event_paranoid":       "4\n",
		"/proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
	}
}

// checkHost makes a checker of files whose tries all end with err.
func checkHost(t *testing.T, files map[string]string, err error) *checker {
	t.Helper()
	h := fakeHost(t, files)
	for name, target := range map[string]string{
		"/proc/self/ns/user":       initialUserNS,
		"/proc/thread-self/ns/net": "net:[4026531833]",
	} {
		if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, h.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	c := h.newChecker()
	try := func() error { return err }
	c.tryTracing, c.tryRawTracepoint, c.tryRingBuffer, c.tryProbeRead = try, try, try, try
	return c
}

func answers(c *checker) map[string]Answer {
	byName := map[string]Answer{}
	for _, check := range c.run(context.Background()) {
		byName[check.Name] = check.Answer
	}
	return byName
}

func TestChecksAllowEverything(t *testing.T) {
	c := checkHost(t, fullFiles(), nil)
	seen := map[string]bool{}
	for _, check := range c.run(t.Context()) {
		if check.State != StateYes || check.Why != "" || check.Fix != "" {
			t.Errorf("%s: %+v", check.Name, check.Answer)
		}
		if check.Title == "" || seen[check.Name] {
			t.Errorf("%s: no title, or twice", check.Name)
		}
		seen[check.Name] = true
	}
	b, err := json.Marshal(Check{Name: "n", Title: "t", Answer: no("w", "f")})
	if want := `{"name":"n","title":"t","state":"no","why":"w","fix":"f"}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

// TestChecksAllowNothing is a host that certainly lacks everything: each no
// says what is missing.
func TestChecksAllowNothing(t *testing.T) {
	w := newVmlinux()
	w.tracepoint("kfree_skb", 2)
	w.add("bpf_prog_info", 4, 0, 0)
	files := fullFiles()
	delete(files, "/proc/sys/net/core/netdev_max_backlog")
	maps.Copy(files, map[string]string{
		vmlinuxBTF:                           string(w.bytes()),
		"/proc/sys/kernel/osrelease":         "5.10.0-30\n",
		"/proc/kallsyms":                     "0000000000000000 A fixed_percpu_data\n0000000000000000 T _text\n",
		"/proc/modules":                      "veth 28672 0 - Live 0x0000000000000000\n",
		"/lib/modules/5.10.0-30/modules.dep": "kernel/net/core/drop_monitor.ko.xz: \n",
		"/proc/self/mounts":                  "proc /proc proc rw 0 0\n",
		"/proc/thread-self/status":           noCapabilities,
		"/sys/kernel/security/lockdown":      "none integrity [confidentiality]\n",
	})
	got := answers(checkHost(t, files, fmt.Errorf("try: %w", ebpf.ErrNotSupported)))
	for name, want := range map[string]string{
		"reason": "5.17", "rx_sk": "6.11", "reason_names": "5.17", "subsystems": "6.4",
		"tp_btf": "5.5", "raw_tracepoint": "4.17", "ringbuf": "5.8", "recursion_misses": "5.12",
		"net_dm": "modprobe drop_monitor", "cap_bpf": "root", "cap_perfmon": "root", "cap_syslog": "root",
		"cap_net_admin": "root", "cap_sys_admin": "root", "cap_sys_ptrace": "root",
		"lockdown": "lockdown=confidentiality", "kptr_restrict": "CAP_SYSLOG", "tracefs": "mount", "netns": "nsenter",
	} {
		a := got[name]
		if a.State != StateNo || a.Why == "" || !strings.Contains(a.Fix, want) {
			t.Errorf("%s: %+v, want no, and %q to fix it", name, a, want)
		}
	}
	if a := got["recursion_guard"]; a.State != StateNo || a.Why == "" {
		t.Errorf("recursion_guard: %+v", a)
	}
	if a := got["tracepoint"]; a.State != StateYes {
		t.Errorf("tracepoint: %+v", a)
	}
}

// TestChecksKnowNothing is a host where nothing can be read: no answer is no.
func TestChecksKnowNothing(t *testing.T) {
	c := (Host{Root: t.TempDir()}).newChecker()
	try := func() error { return unix.EPERM }
	c.tryTracing, c.tryRawTracepoint, c.tryRingBuffer, c.tryProbeRead = try, try, try, try
	for _, check := range c.run(t.Context()) {
		switch check.Name {
		// Missing files are the answer here.
		case "user_namespace", "kptr_restrict", "perf_event_paranoid", "unprivileged_bpf", "run_netns":
			continue
		}
		if check.State != StateUnknown || check.Why == "" {
			t.Errorf("%s: %+v", check.Name, check.Answer)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, check := range c.run(ctx) {
		if check.State != StateUnknown || check.Why != context.Canceled.Error() {
			t.Errorf("%s after the context's end: %+v", check.Name, check.Answer)
		}
	}
}

func TestCheckBTF(t *testing.T) {
	files := fullFiles()
	delete(files, vmlinuxBTF)
	got := answers(checkHost(t, files, nil))
	for _, name := range []string{"btf", "tp_btf"} {
		if a := got[name]; a.State != StateNo || !strings.Contains(a.Fix, "CONFIG_DEBUG_INFO_BTF=y") {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if a := got["recursion_misses"]; a.State != StateYes || !strings.Contains(a.Detail, "version") {
		t.Errorf("recursion_misses by version: %+v", a)
	}
	files["/proc/sys/kernel/osrelease"] = "5.3.0"
	if a := answers(checkHost(t, files, nil))["btf"]; !strings.Contains(a.Fix, "5.4") {
		t.Errorf("btf on 5.3: %+v", a)
	}
	w := newVmlinux()
	w.tracepoint("consume_skb", 2)
	files[vmlinuxBTF] = string(w.bytes())
	if a := answers(checkHost(t, files, nil))["tracepoint"]; a.State != StateNo || !strings.Contains(a.Fix, "CONFIG_BPF_EVENTS") {
		t.Errorf("tracepoint: %+v", a)
	}
}

func TestCheckCapabilities(t *testing.T) {
	status := func(bits ...int) string {
		var effective uint64
		for _, b := range bits {
			effective |= 1 << b
		}
		return fmt.Sprintf("CapEff:\t%016x\n", effective)
	}
	files := fullFiles()
	files["/proc/thread-self/status"] = status(unix.CAP_SYS_ADMIN)
	got := answers(checkHost(t, files, nil))
	for name, want := range map[string]State{
		"cap_bpf": StateYes, "cap_perfmon": StateYes, "cap_sys_admin": StateYes,
		"cap_syslog": StateNo, "cap_net_admin": StateNo, "cap_sys_ptrace": StateNo,
	} {
		if a := got[name]; a.State != want {
			t.Errorf("with CAP_SYS_ADMIN alone: %s: %+v", name, a)
		}
	}
	files["/proc/thread-self/status"] = status(unix.CAP_BPF, unix.CAP_PERFMON)
	files["/proc/sys/kernel/cap_last_cap"] = "37"
	if a := answers(checkHost(t, files, nil))["cap_bpf"]; a.State != StateNo || !strings.Contains(a.Why, "CAP_SYS_ADMIN") {
		t.Errorf("before CAP_BPF: %+v", a)
	}
	files = fullFiles()
	c := checkHost(t, files, nil)
	link := c.host.path("/proc/self/ns/user")
	if err := errors.Join(os.Remove(link), os.Symlink("user:[4026532000]", link)); err != nil {
		t.Fatal(err)
	}
	got = answers(c)
	for _, name := range []string{"user_namespace", "cap_bpf", "cap_sys_admin"} {
		if a := got[name]; a.State != StateNo || !strings.Contains(a.Why, "user namespace") {
			t.Errorf("in a user namespace: %s: %+v", name, a)
		}
	}
}

func TestCheckMemlock(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	files := fullFiles()
	files["/proc/sys/kernel/osrelease"] = "5.10.0"
	if a := answers(checkHost(t, files, nil))["memlock"]; a.State != StateYes || !strings.Contains(a.Detail, "CAP_SYS_RESOURCE") {
		t.Errorf("5.10 with CAP_SYS_RESOURCE: %+v", a)
	}
	files["/proc/thread-self/status"] = noCapabilities
	want := StateNo
	if limit.Cur >= 64<<20 {
		want = StateYes
	}
	if a := answers(checkHost(t, files, nil))["memlock"]; a.State != want || !strings.Contains(a.Detail, fmt.Sprint(limit.Cur)) {
		t.Errorf("5.10 with a limit of %d: %+v, want %s", limit.Cur, a, want)
	}
}

func TestCheckLockdown(t *testing.T) {
	files := fullFiles()
	for text, want := range map[string]State{
		"none [integrity] confidentiality": StateYes,
		"[none] integrity confidentiality": StateYes,
		"none integrity [confidentiality]": StateNo,
		"something else":                   StateUnknown,
	} {
		files["/sys/kernel/security/lockdown"] = text
		if a := answers(checkHost(t, files, nil))["lockdown"]; a.State != want {
			t.Errorf("%q: %+v", text, a)
		}
	}
	delete(files, "/sys/kernel/security/lockdown")
	for err, want := range map[error]State{nil: StateYes, ebpf.ErrNotSupported: StateNo, unix.EPERM: StateUnknown} {
		if a := answers(checkHost(t, files, err))["lockdown"]; a.State != want {
			t.Errorf("tried with error %v: %+v", err, a)
		}
	}
}

func TestCheckNetDM(t *testing.T) {
	zip := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	const hidden = "0000000000000000 T _text\n"
	base := map[string]string{
		"/proc/sys/kernel/osrelease": "6.1.0-50",
		"/proc/kallsyms":             hidden,
		"/proc/modules":              "veth 1 0 - Live 0x0\n",
	}
	const dir = "/lib/modules/6.1.0-50/"
	for _, c := range []struct {
		what  string
		files map[string]string
		want  State
		says  string
	}{
		{"loaded", map[string]string{"/proc/modules": "drop_monitor 1 0 - Live 0x0\n"}, StateYes, "loaded"},
		{"built in", map[string]string{"/proc/kallsyms": hidden + "0000000000000000 t net_dm_cmd_trace\n"}, StateYes, "built into"},
		{"another module's function", map[string]string{"/proc/kallsyms": hidden + "0000000000000000 t net_dm_cmd_trace\t[other]\n"}, StateUnknown, "look for module"},
		{"to load", map[string]string{dir + "modules.dep": "kernel/net/core/drop_monitor.ko.zst:\n"}, StateNo, "modprobe"},
		{"to load, no depmod", map[string]string{dir + "kernel/net/core/drop_monitor.ko": ""}, StateNo, "modprobe"},
		{"no modules here", nil, StateUnknown, "look for module"},
		{"not installed", map[string]string{dir + "modules.dep": "", "/boot/config-6.1.0-50": "CONFIG_NET_DROP_MONITOR=m\n"}, StateNo, "install"},
		{"not configured", map[string]string{dir + "modules.dep": "", "/proc/config.gz": zip("# CONFIG_NET_DROP_MONITOR is not set\n")}, StateNo, "CONFIG_NET_DROP_MONITOR"},
		{"configuration not known", map[string]string{dir + "modules.dep": ""}, StateNo, "install"},
		{"configuration broken", map[string]string{dir + "modules.dep": "", "/proc/config.gz": "no gzip"}, StateNo, "install"},
	} {
		files := maps.Clone(base)
		maps.Copy(files, c.files)
		a := (&checker{host: fakeHost(t, files)}).netDM()
		if a.State != c.want || !strings.Contains(fmt.Sprint(a), c.says) {
			t.Errorf("%s: %+v, want %s and %q", c.what, a, c.want, c.says)
		}
	}
	delete(base, "/proc/modules")
	if a := (&checker{host: fakeHost(t, base)}).netDM(); a.State != StateNo || !strings.Contains(a.Why, "no modules") {
		t.Errorf("kernel without modules: %+v", a)
	}
}
