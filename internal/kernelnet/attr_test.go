package kernelnet

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestAttributes(t *testing.T) {
	m := Message{}.U8(1, 2).U16(3).Attr(1, []byte{5}).Nest(2, Message{}.Attr32(3, 7)).Text(4, "x y")
	type attribute struct {
		Kind    int
		Content []byte
	}
	var got []attribute
	if err := Attributes(m, 4, func(kind int, content []byte) { got = append(got, attribute{kind, content}) }); err != nil {
		t.Error(err)
	}
	want := []attribute{{1, []byte{5}}, {2, Message{}.Attr32(3, 7)}, {4, []byte("x y\x00")}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// Where an attribute ends, perhaps without its padding, and how many there are.
	whole := map[int]int{4: 0, 9: 1, 10: 1, 11: 1, 12: 1, 24: 2, len(m): 3}
	for n := range m {
		count := 0
		err := Attributes(m[:n:n], 4, func(int, []byte) { count++ })
		if want, ok := whole[n]; ok != (err == nil) || ok && count != want || err != nil && !errors.Is(err, ErrShort) {
			t.Errorf("%d of %d bytes: %d attributes, %v", n, len(m), count, err)
		}
	}
	for name, b := range map[string][]byte{
		"too long": {0xff, 0xff, 23, 0}, "of length 0": {0, 0, 0, 0, 0, 0, 0, 0}, "shorter than its header": {3, 0, 1, 0},
	} {
		if _, err := ParseAttrs(b, 0); !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAttrs(t *testing.T) {
	a, err := ParseAttrs(Message{}.Attr(1, []byte{1, 2}).Attr(2, []byte{0, 0, 1, 0}).Attr(3, []byte{0, 0, 0, 1, 0, 0, 0, 0}).
		Attr(4, nil).Attr(5, []byte{9}).Attr(1, []byte{7, 7}).Nest(6, Message{}.Text(1, "in")).Attr(7, []byte{1}), 0)
	if err != nil || a.Num(1) != 0x102 || a.Num(2) != 0x100 || a.Num(3) != 1<<32 || a.Num(4) != 0 || a.Num(5) != 0 || a.Num(99) != 0 {
		t.Errorf("numbers: %d %d %d %d, %v", a.Num(1), a.Num(2), a.Num(3), a.Num(5), err)
	}
	if !a.Has(4) || a.Has(99) || a.Get(99) != nil || !bytes.Equal(a.Get(5), []byte{9}) {
		t.Error("what there is")
	}
	if a.Nest(6).Text(1) != "in" || a.Nest(7) != nil || a.Nest(99).Has(1) {
		t.Error("what is in others")
	}
}

func FuzzAttrs(f *testing.F) {
	f.Add([]byte(Message{}.Attr32(1, 2).Text(unix.NLA_F_NESTED|3, "x")), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, skip uint8) {
		size := 0
		err := Attributes(b, int(skip), func(kind int, content []byte) {
			if size += 4 + len(content); kind >= 1<<14 {
				t.Errorf("type %d", kind)
			}
		})
		if size > len(b) {
			t.Errorf("%d bytes of %d", size, len(b))
		}
		a, perr := ParseAttrs(b, int(skip))
		if (err == nil) != (perr == nil) || perr != nil && a != nil {
			t.Errorf("%v, %v", err, perr)
		}
		_, _ = a.Nest(1).Num(2), a.Text(3)
	})
}
