package kernel

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

// The enums are cut-down copies of a 7.2 kernel's, whose subsystem 3 is
// qdisc; on 6.12 it was openvswitch.
var (
	core72 = []enumValue{
		{"SKB_NOT_DROPPED_YET", 0},
		{"SKB_CONSUMED", 1},
		{"SKB_DROP_REASON_NOT_SPECIFIED", 2},
		{"SKB_DROP_REASON_NO_SOCKET", 3},
		{"SKB_DROP_REASON_SOCKET_RCVBUFF", 6},
		{"SKB_DROP_REASON_MAX", 7},
		{"SKB_DROP_REASON_SUBSYS_MASK", 0xffff0000},
	}
	subsystems72 = []enumValue{
		{"SKB_DROP_REASON_SUBSYS_CORE", 0},
		{"SKB_DROP_REASON_SUBSYS_MAC80211_UNUSABLE", 1},
		{"SKB_DROP_REASON_SUBSYS_OPENVSWITCH", 2},
		{"SKB_DROP_REASON_SUBSYS_QDISC", 3},
		{"SKB_DROP_REASON_SUBSYS_NUM", 4},
	}
	qdisc72 = []enumValue{
		{"QDISC_DROP_UNSPEC", 0},
		{"__QDISC_DROP_REASON", 0x30000},
		{"QDISC_DROP_GENERIC", 0x30001},
		{"QDISC_DROP_OVERLIMIT", 0x30002},
		{"QDISC_DROP_MAX", 0x30003},
	}
	ovs72 = []enumValue{
		{"__OVS_DROP_REASON", 0x20000},
		{"OVS_DROP_LAST_ACTION", 0x20001},
		{"OVS_DROP_MAX", 0x20002},
	}
	hiddenMac72 = []enumValue{
		{"___RX_CONTINUE", 1},
		{"___RX_DROP_UNUSABLE", 0x10000},
		{"___RX_DROP_U_MIC_FAIL", 0x10001},
		{"___RX_DROP_U_ONLY_HIDDEN", 0x10002},
	}
	mac72 = []enumValue{
		{"RX_CONTINUE", 1},
		{"RX_DROP_U_MIC_FAIL", 0x10001},
	}
)

// host72 has the BTF of vmlinux with qdisc's reasons, and of two modules.
func host72(t *testing.T) Host {
	t.Helper()
	w := newVmlinux()
	w.tracepoint("kfree_skb", 4)
	w.enum("skb_drop_reason", core72)
	w.enum("skb_drop_reason_subsys", subsystems72)
	w.enum("qdisc_drop_reason", qdisc72)
	ovs, mac := w.module(), w.module()
	ovs.enum("ovs_drop_reason", ovs72)
	mac.enum("___mac80211_drop_reason", hiddenMac72)
	mac.enum("mac80211_drop_reason", mac72)
	return fakeHost(t, map[string]string{
		vmlinuxBTF:                    string(w.bytes()),
		"/sys/kernel/btf/openvswitch": string(ovs.bytes()),
		"/sys/kernel/btf/mac80211":    string(mac.bytes()),
		"/sys/kernel/btf/broken":      "no BTF",
	})
}

func loadReasons(t *testing.T, h Host) *Reasons {
	t.Helper()
	b, err := h.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	return h.LoadReasons(b)
}

func TestReasonsFromBTF(t *testing.T) {
	r := loadReasons(t, host72(t))
	if r.From() != FromBTF || r.Why() != nil {
		t.Fatalf("from %s, %v", r.From(), r.Why())
	}
	if diff := cmp.Diff([]string{"core", "mac80211_unusable", "openvswitch", "qdisc"}, r.Subsystems()); diff != "" {
		t.Error(diff)
	}
	for value, want := range map[uint32]record.Reason{
		0:          {Name: "SKB_NOT_DROPPED_YET", Subsystem: "core"},
		3:          {Name: "NO_SOCKET", Subsystem: "core"},
		7:          {Name: "7", Subsystem: "core"},
		77:         {Name: "77", Subsystem: "core"},
		0x10000:    {Name: "65536", Subsystem: "mac80211_unusable"},
		0x10001:    {Name: "RX_DROP_U_MIC_FAIL", Subsystem: "mac80211_unusable"},
		0x10002:    {Name: "RX_DROP_U_ONLY_HIDDEN", Subsystem: "mac80211_unusable"},
		0x20000:    {Name: "131072", Subsystem: "openvswitch"},
		0x20001:    {Name: "OVS_DROP_LAST_ACTION", Subsystem: "openvswitch"},
		0x20002:    {Name: "131074", Subsystem: "openvswitch"},
		0x30002:    {Name: "QDISC_DROP_OVERLIMIT", Subsystem: "qdisc"},
		0x30003:    {Name: "196611", Subsystem: "qdisc"},
		0x50001:    {Name: "327681", Subsystem: "5"},
		0xffff0000: {Name: "4294901760", Subsystem: "65535"},
	} {
		want.Value = value
		for range 2 {
			if diff := cmp.Diff(want, r.Lookup(value)); diff != "" {
				t.Error(diff)
			}
		}
	}
}

func TestReasonNames(t *testing.T) {
	var got []string
	for _, reason := range loadReasons(t, host72(t)).Names() {
		got = append(got, reason.Subsystem+" "+reason.Name)
	}
	want := []string{
		"core SKB_NOT_DROPPED_YET", "core SKB_CONSUMED", "core NOT_SPECIFIED", "core NO_SOCKET", "core SOCKET_RCVBUFF",
		"mac80211_unusable RX_DROP_U_MIC_FAIL", "mac80211_unusable RX_DROP_U_ONLY_HIDDEN",
		"openvswitch OVS_DROP_LAST_ACTION",
		"qdisc QDISC_DROP_GENERIC", "qdisc QDISC_DROP_OVERLIMIT",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestReasonsLaterModule sees a subsystem only when its module is loaded.
func TestReasonsLaterModule(t *testing.T) {
	h := host72(t)
	r := loadReasons(t, h)
	module, err := os.ReadFile(h.path("/sys/kernel/btf/openvswitch"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.path("/sys/kernel/btf/openvswitch")); err != nil {
		t.Fatal(err)
	}
	if got := r.Lookup(0x30001).Name; got != "QDISC_DROP_GENERIC" {
		t.Errorf("qdisc: %s", got)
	}
	if err := os.WriteFile(h.path("/sys/kernel/btf/openvswitch"), module, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := r.Lookup(0x20001).Name; got != "OVS_DROP_LAST_ACTION" {
		t.Errorf("openvswitch: %s", got)
	}
}

const (
	format510 = `name: kfree_skb
ID: 1347
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:void * skbaddr;	offset:8;	size:8;	signed:0;
	field:void * location;	offset:16;	size:8;	signed:0;
	field:unsigned short protocol;	offset:24;	size:2;	signed:0;

print fmt: "skbaddr=%p protocol=%u location=%p", REC->skbaddr, REC->protocol, REC->location
`
	format61 = `name: kfree_skb
format:
	field:void * skbaddr;	offset:8;	size:8;	signed:0;
	field:enum skb_drop_reason reason;	offset:28;	size:4;	signed:0;

print fmt: "skbaddr=%p protocol=%u location=%p reason: %s", REC->skbaddr, REC->protocol, REC->location, __print_symbolic(REC->reason, { 1, "NOT_SPECIFIED" }, { 0x2, "NO_SOCKET" }, { SKB_DROP_REASON_LOST, "LOST" }, { 65, "MAX" })
`
	mounts = "sysfs /sys sysfs rw 0 0\ntracefs /sys/kernel/my\\040tracing tracefs rw 0 0\n"
)

func tracefsHost(t *testing.T, format string) Host {
	t.Helper()
	return fakeHost(t, map[string]string{
		"/proc/self/mounts": mounts,
		"/sys/kernel/my tracing/events/skb/kfree_skb/format":     format,
		"/sys/kernel/debug/tracing/events/skb/kfree_skb/format":  "must not be looked at",
		"/sys/kernel/tracing/events/skb/kfree_skb/not-this-file": "",
	})
}

func TestReasonsFromTracefs(t *testing.T) {
	r := tracefsHost(t, format61).LoadReasons(nil)
	if r.From() != FromTracefs || r.Why() != nil {
		t.Fatalf("from %s, %v", r.From(), r.Why())
	}
	want := []record.Reason{{Name: "NOT_SPECIFIED", Subsystem: "core", Value: 1}, {Name: "NO_SOCKET", Subsystem: "core", Value: 2}}
	if diff := cmp.Diff(want, r.Names()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(record.Reason{Name: "131073", Subsystem: "2", Value: 0x20001}, r.Lookup(0x20001)); diff != "" {
		t.Error(diff)
	}
}

// TestReasonsOfOldKernel is a kernel without reasons, by BTF and by tracefs.
func TestReasonsOfOldKernel(t *testing.T) {
	w := newVmlinux()
	w.tracepoint("kfree_skb", 2)
	for from, r := range map[string]*Reasons{
		"btf":     loadReasons(t, fakeHost(t, map[string]string{vmlinuxBTF: string(w.bytes())})),
		"tracefs": tracefsHost(t, format510).LoadReasons(nil),
	} {
		if r.From() != FromNone || r.Why() == nil || !strings.Contains(r.Why().Error(), "5.17") {
			t.Errorf("%s: from %s, %v", from, r.From(), r.Why())
		}
		for _, value := range []uint32{0, 2, 0x20001} {
			if got := r.Lookup(value); got != (record.Reason{}) {
				t.Errorf("%s: Lookup(%d) = %+v", from, value, got)
			}
		}
		var unknown *UnknownReasonError
		if _, err := r.Parse("NO_SOCKET"); !errors.As(err, &unknown) || unknown.Why == nil {
			t.Errorf("%s: Parse: error %v", from, err)
		}
	}
}

// TestReasonsWithoutSource gives numbers, because the kernel may have reasons.
func TestReasonsWithoutSource(t *testing.T) {
	for what, h := range map[string]Host{
		"no files":   {Root: t.TempDir()},
		"no tracefs": fakeHost(t, map[string]string{"/proc/self/mounts": "sysfs /sys sysfs rw 0 0\n"}),
		"garbage":    tracefsHost(t, "garbage"),
		"cut off":    tracefsHost(t, format61[:len(format61)-10]),
	} {
		r := h.LoadReasons(nil)
		if r.From() != FromNone || r.Why() == nil {
			t.Errorf("%s: from %s, %v", what, r.From(), r.Why())
		}
		if got := r.Lookup(3); got != (record.Reason{Name: "3", Subsystem: "core", Value: 3}) {
			t.Errorf("%s: Lookup(3) = %+v", what, got)
		}
	}
}

func TestReasonsParse(t *testing.T) {
	r := loadReasons(t, host72(t))
	for name, want := range map[string]uint32{
		"NO_SOCKET":                      3,
		"no_socket":                      3,
		"skb_drop_reason_socket_rcvbuff": 6,
		"QDISC_DROP_OVERLIMIT":           0x30002,
		"rx_drop_u_mic_fail":             0x10001,
		"OVS_DROP_LAST_ACTION":           0x20001,
		"77":                             77,
		"0x30001":                        0x30001,
	} {
		got, err := r.Parse(name)
		if err != nil || len(got) != 1 || got[0] != r.Lookup(want) {
			t.Errorf("Parse(%q) = %v, %v, want %d", name, got, err, want)
		}
	}
	for name, want := range map[string][]string{
		"rcvbuf":       {"SOCKET_RCVBUFF"},
		"NO_SOKET":     {"NO_SOCKET"},
		"NOSOCKET":     {"NO_SOCKET"},
		"overlimit":    {"QDISC_DROP_OVERLIMIT"},
		"xyzzy":        {},
		"":             {},
		"MAX":          {},
		"OVS_DROP_MAX": {},
	} {
		_, err := r.Parse(name)
		var unknown *UnknownReasonError
		if !errors.As(err, &unknown) {
			t.Errorf("Parse(%q): error %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, unknown.Nearest); diff != "" {
			t.Errorf("Parse(%q): nearest: %s", name, diff)
		}
	}
	_, err := r.Parse("rcvbuf")
	if want := `reason "rcvbuf": this kernel has no such drop reason; did you mean SOCKET_RCVBUFF?`; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestReasonsLookupDoesNotAllocate(t *testing.T) {
	r := loadReasons(t, host72(t))
	for _, value := range []uint32{3, 77, 0x20001, 0x20077} {
		r.Lookup(value)
		if n := testing.AllocsPerRun(100, func() { r.Lookup(value) }); n != 0 {
			t.Errorf("Lookup(%#x): %v allocations", value, n)
		}
	}
}

func TestReasonsAreBounded(t *testing.T) {
	r := loadReasons(t, host72(t))
	for value := range uint32(3 * maxUnnamed) {
		if got := r.Lookup(value<<8 | 0xff); got.Name != strconv.FormatUint(uint64(value<<8|0xff), 10) {
			t.Fatalf("Lookup(%d) = %+v", value, got)
		}
	}
	if n := len(r.unnamed); n > maxUnnamed {
		t.Errorf("remembers %d values without a name", n)
	}
}

func TestReasonsConcurrently(t *testing.T) {
	r := loadReasons(t, host72(t))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for value := range uint32(100) {
				r.Lookup(value)
				r.Lookup(0x20000 | value)
			}
			r.Names()
		})
	}
	wg.Wait()
	if got := r.Lookup(0x20001).Name; got != "OVS_DROP_LAST_ACTION" {
		t.Error(got)
	}
}

func TestParseKfreeSkbFormat(t *testing.T) {
	format, err := os.ReadFile("testdata/kfree_skb-6.18.format")
	if err != nil {
		t.Fatal(err)
	}
	values, given, err := parseKfreeSkbFormat(format)
	if err != nil || !given || len(values) != 127 {
		t.Fatalf("%d values, given %v, error %v", len(values), given, err)
	}
	for _, want := range []enumValue{{"NOT_SPECIFIED", 2}, {"SOCKET_RCVBUFF", 6}, {"RECURSION_LIMIT", 127}} {
		if got := values[want.Value-2]; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if reasons := coreReasons(values); len(reasons) != 126 {
		t.Errorf("%d reasons, want all but MAX", len(reasons))
	}
}

func FuzzParseKfreeSkbFormat(f *testing.F) {
	format, err := os.ReadFile("testdata/kfree_skb-6.18.format")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(format)
	f.Add([]byte(format510))
	f.Add([]byte(format61))
	f.Add([]byte("field: reason;__print_symbolic(REC->reason,{{1,\"A\"},}, )"))
	f.Fuzz(func(t *testing.T, format []byte) {
		values, given, err := parseKfreeSkbFormat(format)
		if err == nil && len(values) > 0 && !given {
			t.Fatal("names without reasons")
		}
		for _, reason := range coreReasons(values) {
			if reason.Name == "" || reason.Value > 0xffff {
				t.Fatalf("reason %+v", reason)
			}
		}
	})
}

// FuzzReasonEnums feeds the three decoders of enums with lines NAME=VALUE.
func FuzzReasonEnums(f *testing.F) {
	for _, values := range [][]enumValue{core72, subsystems72, qdisc72, ovs72, hiddenMac72} {
		var lines strings.Builder
		for _, v := range values {
			lines.WriteString(v.Name + "=" + strconv.FormatUint(uint64(v.Value), 10) + "\n")
		}
		f.Add(lines.String())
	}
	f.Add("=1\n_=65536\n___=65537\nSKB_DROP_REASON_=3\nSKB_DROP_REASON_SUBSYS_=1\n_MAX=131072")
	f.Fuzz(func(t *testing.T, text string) {
		var values []enumValue
		for line := range strings.Lines(text) {
			name, number, _ := strings.Cut(strings.TrimSpace(line), "=")
			if value, err := strconv.ParseUint(number, 10, 32); err == nil {
				values = append(values, enumValue{name, uint32(value)})
			}
		}
		reasons := coreReasons(values)
		names := subsystemNames(values)
		names[1], names[3] = "one", "three"
		reasons = append(reasons, subsystemReasons(values, names)...)
		if len(reasons) > len(values) {
			t.Fatalf("%d reasons of %d values", len(reasons), len(values))
		}
		for _, reason := range reasons {
			if reason.Name == "" || reason.Subsystem == "" {
				t.Fatalf("reason %+v", reason)
			}
		}
	})
}

func BenchmarkReasonsLookup(b *testing.B) {
	r := &Reasons{given: true, named: map[uint32]record.Reason{}}
	r.add(coreReasons(core72))
	b.ReportAllocs()
	for b.Loop() {
		if r.Lookup(6).Name != "SOCKET_RCVBUFF" {
			b.Fatal("wrong name")
		}
	}
}
