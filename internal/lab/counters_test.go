package lab

import (
	"errors"
	"strings"
	"testing"
)

// Lines of /proc/net/snmp of 6.18, shortened: two tables whose names begin
// alike, a negative number and one above 32 bits.
const snmpText = `Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens
Tcp: 1 200 120000 -1 22
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors
Udp: 12 100 98 6 18446744073709551615
UdpLite: InDatagrams NoPorts
UdpLite: 0 7
`

func TestParseTable(t *testing.T) {
	for _, c := range []struct {
		table, field string
		want         uint64
	}{
		{"Udp", "NoPorts", 100},
		{"Udp", "InDatagrams", 12},
		{"Udp", "RcvbufErrors", 1<<64 - 1},
		{"UdpLite", "NoPorts", 7},
		{"Tcp", "ActiveOpens", 22},
	} {
		got, err := parseTable([]byte(snmpText), c.table, c.field)
		if err != nil || got != c.want {
			t.Errorf("%s.%s = %d, %v, want %d", c.table, c.field, got, err, c.want)
		}
	}
}

func TestParseTableErrors(t *testing.T) {
	for _, c := range []struct{ name, text, table, field, want string }{
		{"no such table", snmpText, "Sctp", "NoPorts", "no such counter"},
		{"no such field", snmpText, "Udp", "NoPort", "no such counter"},
		{"cut after the names", "Udp: InDatagrams NoPorts\n", "Udp", "NoPorts", "no such counter"},
		{"fewer values", "Udp: A B\nUdp: 1\n", "Udp", "B", "2 names but 1 values"},
		{"more values", "Udp: A\nUdp: 1 2\n", "Udp", "A", "1 names but 2 values"},
		{"negative", snmpText, "Tcp", "MaxConn", "invalid syntax"},
		{"empty", "", "Udp", "NoPorts", "no such counter"},
	} {
		got, err := parseTable([]byte(c.text), c.table, c.field)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d, %v, want an error with %q", c.name, got, err, c.want)
		}
	}
	if _, err := parseTable(nil, "Udp", "NoPorts"); !errors.Is(err, errNoCounter) {
		t.Errorf("missing counter: %v is not errNoCounter", err)
	}
}

// A value is found only if it stands in the text, and nothing panics.
func FuzzParseTable(f *testing.F) {
	for _, text := range []string{
		snmpText, "", "Udp:", "Udp:\nUdp:\n", "Udp: NoPorts\nUdp: \n", "Udp: NoPorts\nUdp: x\n",
		"Udp: NoPorts NoPorts\nUdp: 1 2\n", "Udp: NoPorts\r\nUdp: 99999999999999999999\n",
	} {
		f.Add([]byte(text), "Udp", "NoPorts")
	}
	f.Fuzz(func(t *testing.T, text []byte, table, field string) {
		v, err := parseTable(text, table, field)
		if err != nil && v != 0 {
			t.Errorf("%d beside the error %v", v, err)
		}
		if err == nil && !strings.Contains(string(text), field) {
			t.Errorf("%d for a field that does not occur", v)
		}
	})
}

func TestDifference(t *testing.T) {
	is := func(v uint64) counter { return func() (uint64, error) { return v, nil } }
	broken := func() (uint64, error) { return 0, errNoCounter }
	for _, c := range []struct {
		name string
		in   counter
		out  []counter
		want uint64
		err  string
	}{
		{"nothing out", is(7), nil, 7, ""},
		{"two ways out", is(7), []counter{is(2), is(4)}, 1, ""},
		{"all out", is(7), []counter{is(7)}, 0, ""},
		{"more out than in", is(7), []counter{is(5), is(3)}, 0, "8 packets came out, but only 7"},
		{"unknown in", broken, nil, 0, "no such counter"},
		{"unknown out", is(7), []counter{is(1), broken}, 0, "no such counter"},
	} {
		got, err := difference(c.in, c.out...)()
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %d, %v, want %d and %q", c.name, got, err, c.want, c.err)
		}
	}
}
