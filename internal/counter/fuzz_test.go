package counter

import (
	"strconv"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/record"
)

// wellFormed holds what is true of every value, whatever was parsed.
func wellFormed(t *testing.T, values []Value, source string) {
	t.Helper()
	for _, v := range values {
		if table, field, ok := strings.Cut(v.Name, "."); !ok || table == "" || field == "" || v.Command == "" || v.Source != source {
			t.Errorf("%+v", v)
		}
	}
}

func FuzzParseLinks(f *testing.F) {
	for _, m := range loadMessages(f, "links-6.18.hex") {
		f.Add(m)
	}
	f.Add([]byte{})
	f.Add(link(1, "x", 23))
	f.Add(link(1<<31, strings.Repeat("n", 300), 30))
	f.Fuzz(func(t *testing.T, m []byte) {
		values, err := parseLinks([][]byte{m})
		wellFormed(t, values, linkSource)
		if err != nil && len(values) > 0 {
			t.Errorf("%d values beside the error %v", len(values), err)
		}
		for _, v := range values {
			if v.Device.Index == 0 || v.Device != values[0].Device {
				t.Errorf("%+v is of another device than %+v", v, values[0])
			}
			if len(m) < 16+8 {
				t.Errorf("a value of %d bytes", len(m))
			}
		}
	})
}

// split makes messages of b, each behind a byte that says how many
// times four bytes it has.
func split(b []byte) [][]byte {
	var messages [][]byte
	for len(b) > 0 {
		n := min(4*int(b[0]), len(b)-1)
		messages = append(messages, b[1:1+n])
		b = b[1+n:]
	}
	return messages
}

func FuzzParseQdiscs(f *testing.F) {
	pack := func(messages ...[]byte) []byte {
		var b []byte
		for _, m := range messages {
			b = append(append(b, byte(len(m)/4)), m...)
		}
		return b
	}
	f.Add(pack(loadMessages(f, "qdiscs-6.18.hex")...))
	f.Add(pack(queue(1, 0, handleRoot, "fq", 1<<31), queue(1, 0, 1, "red", 2)))
	f.Add(pack(queue(1, 1<<16, 2<<16, "htb", 1), queue(1, 2<<16, 1<<16, "htb", 2)))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		messages := split(b)
		values, _ := parseQdiscs(messages, nil)
		wellFormed(t, values, qdiscSource)
		// No device has lost more than all its qdiscs say together.
		most := map[uint32]uint64{}
		for _, m := range messages {
			if q, err := decodeQdisc(m, newXparser()); err == nil {
				most[q.device] += q.stats.drops
			}
		}
		lost := map[uint32]uint64{}
		for _, v := range values {
			if v.Object == "" && (v.Name == "qdisc.drops" || v.Name == "clsact.drops") {
				lost[v.Device.Index] += v.Value
			}
		}
		for device, n := range lost {
			if n > most[device] {
				t.Errorf("device %d: %d drops of at most %d", device, n, most[device])
			}
		}
	})
}

// FuzzDiff joins two reads whose values are made of the bytes.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("\x00\x01\x05\x01\x02\x06"), []byte("\x00\x01\x09\x01\x02\x03\x02\x03\x04"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		read := func(b []byte) Snapshot {
			s := snapshot()
			for ; len(b) >= 3; b = b[3:] {
				n := uint64(b[2])
				if b[1]%4 == 0 {
					s.Values = append(s.Values, plain("IcmpMsg.a"+strconv.Itoa(int(b[0]%4)), n))
				} else {
					s.Values = append(s.Values, ofDevice("link.a"+strconv.Itoa(int(b[0]%4)), uint32(b[1]%4), n))
				}
			}
			return s
		}
		before, after := read(a), read(b)
		got := Diff(before, after, record.NetNS{})
		if len(got) != len(after.Values) {
			t.Fatalf("%d counters of %d values", len(got), len(after.Values))
		}
		for i, c := range got {
			if c.After != after.Values[i].Value || c.Delta > c.After || c.After >= c.Before && c.Delta != c.After-c.Before {
				t.Errorf("%+v", c)
			}
		}
	})
}
