package observe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/probe/skbdrop"
	"github.com/whydrop/whydrop/record"
)

// fakeNames is a kernel whose reason 3 is NO_SOCKET.
type fakeNames struct{ lookups *int }

func (f fakeNames) Lookup(v uint32) record.Reason {
	*f.lookups++
	if v == 3 {
		return record.Reason{Name: "NO_SOCKET", Subsystem: "core", Value: v}
	}
	return record.Reason{Name: fmt.Sprint(v), Value: v}
}

func (f fakeNames) Resolve(a uint64) record.Location {
	return record.Location{Symbol: fmt.Sprintf("f%x", a&^0xff), Offset: a & 0xff, Address: record.Address(a)}
}

func (f fakeNames) Parse(name string) ([]record.Reason, error) {
	if strings.EqualFold(name, "NO_SOCKET") {
		return []record.Reason{f.Lookup(3)}, nil
	}
	err := &kernel.UnknownReasonError{Name: name}
	if strings.HasPrefix(name, "no_") {
		err.Nearest = []string{"NO_SOCKET"}
	}
	return nil, err
}

func testResolver(t *testing.T) (*resolver, *int) {
	t.Helper()
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	f := fakeNames{&n}
	return newResolver(f, f, names, time.Hour), &n
}

func TestKeyIsResolvedOnce(t *testing.T) {
	r, lookups := testResolver(t)
	raw := skbdrop.Key{Location: 0x1234, Reason: 3, NetNS: 0xf0000001, EtherType: 0x800, IPProto: 17, Direction: skbdrop.Forward}
	k := r.key(raw)
	if k.Reason.Name != "NO_SOCKET" || k.Location.String() != "f1200+0x34" || k.Direction != record.DirectionForward ||
		k.NetNS.Inode != 0xf0000001 || k.EtherType != 0x800 || k.IPProto != 17 {
		t.Errorf("key = %+v", k)
	}
	r.key(raw)
	if *lookups != 1 {
		t.Errorf("%d look-ups for one key", *lookups)
	}
	r.symbols = nil
	raw.Location = 0x5678
	if got := r.key(raw).Location.String(); got != "0x5678" {
		t.Errorf("location without symbols = %s", got)
	}
}

// fakeTraps knows the trap 5.
type fakeTraps struct{}

func (fakeTraps) Trap(k skbdrop.Key) (skbdrop.Trap, error) {
	if k.Location == 5 {
		return skbdrop.Trap{Name: "tail_drop", Group: "buffer_drops"}, nil
	}
	return skbdrop.Trap{}, errors.New("there is none")
}

// TestKeyOfHardware: as the drop monitor tells it, with the namespace besides.
func TestKeyOfHardware(t *testing.T) {
	r, lookups := testResolver(t)
	raw := skbdrop.Key{Location: 5, NetNS: 0xf0000001, Ifindex: 7, EtherType: 0x800, IPProto: 17, Direction: skbdrop.Hardware}
	for _, c := range []struct {
		traps trapNames
		at    uint64
		want  record.Reason
	}{
		{fakeTraps{}, 5, record.Reason{Name: "tail_drop", Group: "buffer_drops", Subsystem: record.SubsystemDevlink}},
		{fakeTraps{}, 6, record.Reason{Subsystem: record.SubsystemDevlink}},
		{nil, 7, record.Reason{Subsystem: record.SubsystemDevlink}},
	} {
		r.traps, raw.Location = c.traps, c.at
		k := r.key(raw)
		if !k.Hardware() || k.Reason != c.want || k.Location != (record.Location{}) || k.Direction != record.DirectionRX ||
			k.NetNS.Inode != 0xf0000001 || k.Device.Index != 7 || k.EtherType != 0x800 || k.IPProto != 17 {
			t.Errorf("key = %+v, want reason %+v", k, c.want)
		}
	}
	if *lookups != 0 {
		t.Error("a trap was looked up among the kernel's reasons")
	}
	stack := []record.Location{{Symbol: "bpf_trace_run3"}, {Symbol: "devlink_trap_report.cold"}, {Symbol: "mlxsw_core_skb_receive"}}
	if got := reporters(stack); len(got) != 2 || got[0] != stack[1] {
		t.Errorf("reporters = %v", got)
	}
	if got := reporters(stack[2:]); len(got) != 1 {
		t.Errorf("reporters without the function = %v", got)
	}
}

func TestDeviceOfAnotherNamespaceIsNotGuessed(t *testing.T) {
	r, _ := testResolver(t)
	// 1 is lo in every namespace; only of its own can the name be asked.
	if got := r.key(skbdrop.Key{NetNS: r.netns.Own(), Ifindex: 1}).Device.Name; got != "lo" {
		t.Errorf("own device 1 = %q", got)
	}
	if got := r.key(skbdrop.Key{NetNS: 0xf0000001, Ifindex: 1}).Device.Name; got != "" {
		t.Errorf("device 1 of another namespace = %q", got)
	}
}

func TestCallersLeavesOutTheTracing(t *testing.T) {
	for _, c := range []struct{ stack, want []uint64 }{
		{[]uint64{1, 2, 7, 8, 9}, []uint64{7, 8, 9}},
		{[]uint64{7, 8}, []uint64{7, 8}},
		{[]uint64{1, 2}, []uint64{1, 2}}, // better too much than nothing
		{nil, nil},
	} {
		if got := callers(c.stack, 7); !slices.Equal(got, c.want) {
			t.Errorf("callers(%v, 7) = %v, want %v", c.stack, got, c.want)
		}
	}
}

func TestFilter(t *testing.T) {
	r, n := testResolver(t)
	compile := func(f Filter) (matcher, error) { return f.compile(fakeNames{n}, r.netns) }
	k := record.Key{
		Reason: record.Reason{Name: "NO_SOCKET", Subsystem: "core", Value: 3},
		Device: record.Device{Index: 2, Name: "eth0"}, NetNS: record.NetNS{Inode: 4026531999},
	}
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Interfaces: []string{"eth1", "eth0"}}, true},
		{Filter{Interfaces: []string{"eth1"}}, false},
		{Filter{Reasons: []string{"no_socket"}}, true},
		{Filter{NetNS: []string{"4026531999"}}, true},
		{Filter{NetNS: []string{"4026531998"}}, false},
		{Filter{Interfaces: []string{"eth0"}, NetNS: []string{"4026531998"}}, false},
	} {
		m, err := compile(c.f)
		if err != nil {
			t.Fatal(err)
		}
		if m.Match(k) != c.want {
			t.Errorf("filter %+v matches: %v, want %v", c.f, !c.want, c.want)
		}
		if c.f.Match(k) != c.want {
			t.Errorf("filter %+v matches a recorded key: %v, want %v", c.f, !c.want, c.want)
		}
	}
	// A device of another namespace whose name no sample has brought yet may be
	// the one that is asked for; a drop without any device is not.
	eth1, err := compile(Filter{Interfaces: []string{"eth1"}})
	if err != nil {
		t.Fatal(err)
	}
	if k.Device = (record.Device{Index: 2}); !eth1.Match(k) {
		t.Error("a drop on a device without a name is filtered out")
	}
	if k.Device = (record.Device{}); eth1.Match(k) {
		t.Error("a drop without a device matches")
	}
	// A trap is asked for by its name; that of a driver may be any.
	trap := record.Key{Reason: record.Reason{Name: "tail_drop", Group: "buffer_drops", Subsystem: record.SubsystemDevlink}}
	software := record.Key{Reason: record.Reason{Name: "tail_drop", Subsystem: "core"}}
	m, err := compile(Filter{Reasons: []string{"tail_drop"}})
	if err != nil || !m.Match(trap) || m.Match(software) || m.Match(k) {
		t.Errorf("asked for a trap: %v, matches %v, %v, %v", err, m.Match(trap), m.Match(software), m.Match(k))
	}
	if m, err = compile(Filter{Reasons: []string{"NO_SOCKET"}}); err != nil || m.Match(trap) {
		t.Errorf("asked for another reason, the trap matches (%v)", err)
	}
	for _, f := range []Filter{
		{Reasons: []string{"NO_SUCH_REASON"}},
		{Reasons: []string{"no_sockett"}},
		{NetNS: []string{"no-such-namespace"}},
		{Interfaces: []string{""}},
	} {
		var wrong *FilterError
		if _, err := compile(f); !errors.As(err, &wrong) {
			t.Errorf("filter %+v: %v, want a *FilterError", f, err)
		}
	}
}

// TestRecordedFilter: what watches tells no place of a drop, so that a record of
// it keeps all of them, as the watching did.
func TestRecordedFilter(t *testing.T) {
	f := Filter{Interfaces: []string{"eth0"}, NetNS: []string{"host"}, Reasons: []string{"NO_SOCKET"}}
	nowhere := record.Key{Reason: record.Reason{Name: "NO_SOCKET"}}
	for _, c := range []struct {
		sources []record.Source
		want    bool
	}{
		{[]record.Source{{Name: SourceSkbDrop, State: record.SourceOK}}, false},
		{[]record.Source{{Name: SourceSkbDrop, State: record.SourceFailed}, {Name: SourceDropmon, State: record.SourceDegraded}}, true},
		{[]record.Source{{Name: SourceSkbDrop, State: record.SourceOK}, {Name: SourceDropmon, State: record.SourceFailed}}, false},
		{nil, false},
	} {
		got, blind := f.Recorded(c.sources)
		if got.Match(nowhere) != c.want || (len(blind) == 1) != c.want || got.Match(record.Key{}) {
			t.Errorf("%+v: matches %v, blind %v, want %v", c.sources, got.Match(nowhere), blind, c.want)
		}
	}
	if _, blind := (Filter{Reasons: f.Reasons}).Recorded([]record.Source{{Name: SourceDropmon, State: record.SourceOK}}); blind != nil {
		t.Errorf("no place was asked for: %v", blind)
	}
}

func TestUnavailableSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no BTF":        {fmt.Errorf("load: %w", kernel.ErrNoBTF), "/sys/kernel/btf/vmlinux"},
		"no tracepoint": {fmt.Errorf("look: %w", kernel.ErrNoTracepoint), "whydrop doctor"},
		"old kernel":    {fmt.Errorf("load: %w", ebpf.ErrNotSupported), "5.8"},
		"verifier":      {fmt.Errorf("load: %w", &ebpf.VerifierError{Cause: syscall.EACCES}), "verifier"},
		"anything":      {errors.New("out of cheese"), "out of cheese"},
	} {
		err := unavailable(kernel.Host{}, c.err)
		var u *UnavailableError
		if !errors.As(err, &u) || !errors.Is(err, c.err) {
			t.Fatalf("%s: %v is no *UnavailableError around its cause", name, err)
		}
		if !strings.Contains(err.Error(), c.want) || u.Fix == "" || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want one line with %q", name, err, c.want)
		}
	}
}
