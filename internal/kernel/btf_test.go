package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// btfWriter makes BTF blobs for tests, of vmlinux or of a module on top of it.
type btfWriter struct {
	types   []uint32
	strings bytes.Buffer
	// firstString and ids are where this blob's own strings and types begin.
	firstString, ids uint32
}

func newVmlinux() *btfWriter {
	w := &btfWriter{ids: 1}
	w.strings.WriteByte(0)
	return w
}

func (w *btfWriter) module() *btfWriter {
	return &btfWriter{firstString: uint32(w.strings.Len()), ids: w.ids}
}

func (w *btfWriter) str(s string) uint32 {
	if s == "" {
		return 0
	}
	at := w.firstString + uint32(w.strings.Len())
	w.strings.WriteString(s + "\x00")
	return at
}

// add appends a type and returns its number.
func (w *btfWriter) add(name string, kind, members, sizeOrType uint32, tail ...uint32) uint32 {
	w.types = append(w.types, w.str(name), kind<<24|members, sizeOrType)
	w.types = append(w.types, tail...)
	w.ids++
	return w.ids - 1
}

func (w *btfWriter) enum(name string, values []enumValue) {
	var tail []uint32
	for _, v := range values {
		tail = append(tail, w.str(v.Name), v.Value)
	}
	w.add(name, btfKindEnum, uint32(len(values)), 4, tail...)
}

// tracepoint adds what the kernel has for a tracepoint of so many arguments.
func (w *btfWriter) tracepoint(name string, args int) {
	voidPointer := w.add("", 2, 0, 0)
	var params []uint32
	for range args + 1 {
		params = append(params, 0, voidPointer)
	}
	proto := w.add("", 13, uint32(args+1), 0, params...)
	w.add("btf_trace_"+name, 8, 0, w.add("", 2, 0, proto))
}

// qdiscDrop adds the tracepoint qdisc:qdisc_drop with the arguments that it has
// on 7.2 or, swapped, with the last two in another order.
func (w *btfWriter) qdiscDrop(swapped bool) {
	other := w.add("", 2, 0, 0)
	skb := w.add("", 2, 0, w.add("sk_buff", 4, 0, 8))
	w.enum("qdisc_drop_reason", []enumValue{{"QDISC_DROP_GENERIC", 0x30001}})
	reason := w.ids - 1
	params := []uint32{0, other, 0, other, 0, other, 0, other, 0, skb, 0, reason}
	if swapped {
		params[9], params[11] = reason, skb
	}
	proto := w.add("", 13, 6, 0, params...)
	w.add("btf_trace_qdisc_drop", 8, 0, w.add("", 2, 0, proto))
}

// trapReport adds the tracepoint devlink:devlink_trap_report, with that struct
// as its third argument.
func (w *btfWriter) trapReport(metadata string) {
	const pointer, structure, constant = 2, 4, 10
	devlink := w.add("", pointer, 0, w.add("", constant, 0, w.add("devlink", structure, 0, 8)))
	skb := w.add("", pointer, 0, w.add("sk_buff", structure, 0, 8))
	last := w.add("", pointer, 0, w.add("", constant, 0, w.add(metadata, structure, 0, 8)))
	proto := w.add("", 13, 4, 0, 0, devlink, 0, devlink, 0, skb, 0, last)
	w.add("btf_trace_devlink_trap_report", 8, 0, w.add("", pointer, 0, proto))
}

func (w *btfWriter) bytes() []byte {
	const headerLen = 24
	b := binary.NativeEndian.AppendUint16(nil, 0xeb9f)
	b = append(b, 1, 0)
	for _, v := range []int{headerLen, 0, 4 * len(w.types), 4 * len(w.types), w.strings.Len()} {
		b = binary.NativeEndian.AppendUint32(b, uint32(v))
	}
	for _, v := range w.types {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return append(b, w.strings.Bytes()...)
}

func specOf(t *testing.T, w *btfWriter) *btf.Spec {
	t.Helper()
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(w.bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestTrapTracepointArgumentsMove: arguments were appended over the years, so
// the kernel is asked how many there are.
func TestTrapTracepointArgumentsMove(t *testing.T) {
	for _, args := range []int{2, 3, 4} {
		w := newVmlinux()
		w.tracepoint("kfree_skb", args)
		if got, err := KfreeSkbArgs(specOf(t, w)); got != args || err != nil {
			t.Errorf("%d arguments: got %d, %v", args, got, err)
		}
	}
	w := newVmlinux()
	w.tracepoint("consume_skb", 2)
	if _, err := KfreeSkbArgs(specOf(t, w)); !errors.Is(err, ErrNoTracepoint) {
		t.Errorf("without the tracepoint: error %v", err)
	}
	w = newVmlinux()
	w.tracepoint("kfree_skb", 1)
	if _, err := KfreeSkbArgs(specOf(t, w)); err == nil || errors.Is(err, ErrNoTracepoint) {
		t.Errorf("without location: error %v", err)
	}
	w = newVmlinux()
	w.add("btf_trace_kfree_skb", 8, 0, w.add("int", 1, 0, 4, 32))
	if _, err := KfreeSkbArgs(specOf(t, w)); err == nil || errors.Is(err, ErrNoTracepoint) {
		t.Errorf("not a pointer: error %v", err)
	}
}

func TestHasQdiscDrop(t *testing.T) {
	for name, c := range map[string]struct {
		add  func(*btfWriter)
		want bool
	}{
		"7.2":             {func(w *btfWriter) { w.qdiscDrop(false) }, true},
		"other order":     {func(w *btfWriter) { w.qdiscDrop(true) }, false},
		"fewer arguments": {func(w *btfWriter) { w.tracepoint("qdisc_drop", 3) }, false},
		"none":            {func(w *btfWriter) { w.tracepoint("qdisc_dequeue", 5) }, false},
	} {
		w := newVmlinux()
		c.add(w)
		b := &BTF{Spec: specOf(t, w)}
		if got, err := b.HasQdiscDrop(); got != c.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestHasTrapReport(t *testing.T) {
	for name, c := range map[string]struct {
		add  func(*btfWriter)
		want bool
	}{
		"5.10":            {func(w *btfWriter) { w.trapReport("devlink_trap_metadata") }, true},
		"other argument":  {func(w *btfWriter) { w.trapReport("net_dm_hw_metadata") }, false},
		"fewer arguments": {func(w *btfWriter) { w.tracepoint("devlink_trap_report", 2) }, false},
		"no pointers":     {func(w *btfWriter) { w.tracepoint("devlink_trap_report", 3) }, false},
		"none":            {func(w *btfWriter) { w.tracepoint("devlink_hwmsg", 3) }, false},
	} {
		w := newVmlinux()
		c.add(w)
		b := &BTF{Spec: specOf(t, w)}
		if got, err := b.HasTrapReport(); got != c.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestLoadBTF(t *testing.T) {
	h := fakeHost(t, map[string]string{"/sys/kernel/osrelease": "5.10.0"})
	_, err := h.LoadBTF()
	if !errors.Is(err, ErrNoBTF) || !strings.Contains(err.Error(), "CONFIG_DEBUG_INFO_BTF=y") {
		t.Errorf("no BTF: error %v, want the option that brings it", err)
	}
	if _, err := (Host{Root: t.TempDir()}).LoadBTF(); err == nil || errors.Is(err, ErrNoBTF) {
		t.Errorf("no sysfs: error %v", err)
	}
	if _, err := fakeHost(t, map[string]string{vmlinuxBTF: "garbage"}).LoadBTF(); err == nil || errors.Is(err, ErrNoBTF) {
		t.Errorf("garbage: error %v", err)
	}
	w := newVmlinux()
	w.tracepoint("kfree_skb", 3)
	b, err := fakeHost(t, map[string]string{vmlinuxBTF: string(w.bytes())}).LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := KfreeSkbArgs(b.Spec); n != 3 || err != nil {
		t.Errorf("%d arguments, %v", n, err)
	}
}

func TestRawBTFEnums(t *testing.T) {
	w := newVmlinux()
	w.add("int", 1, 0, 4, 32)
	w.enum("skb_drop_reason", []enumValue{{"A", 0}, {"B", 0xffff0000}})
	w.enum("something_else", []enumValue{{"C", 1}})
	w.tracepoint("kfree_skb", 4)
	w.enum("qdisc_drop_reason", []enumValue{{"D", 0x30001}})
	m := w.module()
	m.enum("ovs_drop_reason", []enumValue{{"E", 0x20001}})
	// A module refers to strings of vmlinux by their offsets there.
	m.types = append(m.types, uint32(bytes.Index(w.strings.Bytes(), []byte("qdisc_drop_reason"))), btfKindEnum<<24, 4)

	vmlinux, err := parseRawBTF(w.bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := vmlinux.enums("drop_reason")
	if err != nil {
		t.Fatal(err)
	}
	want := [][]enumValue{{{"A", 0}, {"B", 0xffff0000}}, {{"D", 0x30001}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	module, err := parseRawBTF(m.bytes(), vmlinux)
	if err != nil {
		t.Fatal(err)
	}
	got, err = module.enums("drop_reason")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]enumValue{{{"E", 0x20001}}, {}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRawBTFErrors(t *testing.T) {
	w := newVmlinux()
	w.enum("x_drop_reason", []enumValue{{"A", 0}})
	good := w.bytes()
	for n := range good {
		b, err := parseRawBTF(good[:n], nil)
		if err == nil {
			_, err = b.enums("drop_reason")
		}
		if !errors.Is(err, errBTF) {
			t.Fatalf("first %d of %d bytes: error %v", n, len(good), err)
		}
	}
	for _, kind := range []uint32{0, 20, 31} {
		w := newVmlinux()
		w.add("", kind, 0, 0)
		b, err := parseRawBTF(w.bytes(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.enums(""); !errors.Is(err, errBTF) {
			t.Errorf("kind %d: error %v", kind, err)
		}
	}
}

func FuzzRawBTF(f *testing.F) {
	w := newVmlinux()
	w.add("int", 1, 0, 4, 32)
	w.enum("qdisc_drop_reason", []enumValue{{"D", 0x30001}})
	w.tracepoint("kfree_skb", 4)
	m := w.module()
	m.enum("ovs_drop_reason", []enumValue{{"E", 0x20001}})
	f.Add(w.bytes(), m.bytes())
	f.Add([]byte{0xeb, 0x9f, 1, 0}, []byte{})
	f.Fuzz(func(t *testing.T, base, module []byte) {
		vmlinux, err := parseRawBTF(base, nil)
		if err != nil {
			return
		}
		for _, b := range []struct {
			blob []byte
			on   *rawBTF
		}{{base, nil}, {module, vmlinux}} {
			raw, err := parseRawBTF(b.blob, b.on)
			if err != nil {
				continue
			}
			enums, err := raw.enums("drop_reason")
			if err != nil {
				continue
			}
			values := 0
			for _, e := range enums {
				values += len(e)
			}
			if 12*len(enums)+8*values > len(raw.types) {
				t.Fatalf("%d enums of %d values in %d bytes", len(enums), values, len(raw.types))
			}
		}
	})
}

func TestReadAside(t *testing.T) {
	h := fakeHost(t, map[string]string{"/sys/full": "some bytes", "/sys/empty": ""})
	data, release, err := readAside(h.path("/sys/full"))
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != "some bytes" {
		t.Errorf("read %q", data)
	}
	release()
	if _, _, err := readAside(h.path("/sys/empty")); err == nil {
		t.Error("empty file: no error")
	}
	if _, _, err := readAside(h.path("/sys/none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
}
