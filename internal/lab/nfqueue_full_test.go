package lab

import (
	"errors"
	"testing"
)

const queueText = "   76  30945     0 1     0     3     0       13  1\n   77  30946    10 1     0   100     7      110  1\n"

func TestParseQueue(t *testing.T) {
	for _, c := range []struct {
		number uint16
		column int
		want   uint64
	}{{76, 5, 3}, {77, 5, 100}, {77, 6, 7}, {77, 7, 110}} {
		if got, err := parseQueue([]byte(queueText), c.number, c.column); err != nil || got != c.want {
			t.Errorf("queue %d, column %d: %d, %v, want %d", c.number, c.column, got, err, c.want)
		}
	}
	for _, text := range []string{"", "77\n", "   7  1 2 3 4 5 6 7\n"} {
		if v, err := parseQueue([]byte(text), 77, 5); !errors.Is(err, errNoCounter) {
			t.Errorf("%q: %d, %v", text, v, err)
		}
	}
	if v, err := parseQueue([]byte("77 1 2 3 4 -5 6 7\n"), 77, 5); err == nil {
		t.Errorf("a number below 0 gives %d", v)
	}
}

func FuzzParseQueue(f *testing.F) {
	for _, text := range []string{queueText, "", "77 1", "77 a b c d e f g h\n"} {
		f.Add([]byte(text), uint16(77), uint8(5))
	}
	f.Fuzz(func(t *testing.T, text []byte, number uint16, column uint8) {
		if v, err := parseQueue(text, number, int(column)); err != nil && v != 0 {
			t.Errorf("%d and %v", v, err)
		}
	})
}
