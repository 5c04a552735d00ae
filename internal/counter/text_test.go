package counter

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTables(t *testing.T) {
	values, err := parseTables(load(t, "proc/reconstructed-3.10/snmp"), "/proc/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{
		"Ip.InReceives": 49837562839, "Ip.OutNoRoutes": 2, "Icmp.InEchos": 1100,
		"IcmpMsg.InType8": 1100, "IcmpMsg.InType25": 1, "IcmpMsg.OutType3": 3000, // two tables of one name
		"Tcp.RetransSegs": 120091, "Udp.RcvbufErrors": 174, "UdpLite.RcvbufErrors": 0,
	} {
		if got := value(t, values, name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
	for _, v := range values {
		switch v.Name {
		case "Ip.Forwarding", "Ip.DefaultTTL", "Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.CurrEstab":
			if !v.Level {
				t.Errorf("%s is a level", v.Name)
			}
		case "Tcp.MaxConn":
			t.Errorf("%+v, and it was -1", v)
		default:
			if v.Level {
				t.Errorf("%s is a counter", v.Name)
			}
		}
	}
}

func TestParseTablesEdges(t *testing.T) {
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "", ""},
		{"largest", "A: b\nA: 18446744073709551615\n", "A.b 18446744073709551615", ""},
		{"too large", "A: b c\nA: 18446744073709551616 2\n", "A.c 2", "value out of range"},
		{"negative", "A: b c\nA: -1 2\n", "A.c 2", ""},
		{"negative, too large", "A: b c\nA: -99999999999999999999 2\n", "A.c 2", "value out of range"},
		{"only a sign", "A: b\nA: -\n", "", "invalid syntax"},
		{"hexadecimal", "A: b\nA: 0x10\n", "", "invalid syntax"},
		{"unknown names", "New: Ünknown x-y\nNew: 1 2\n", "New.Ünknown 1, New.x-y 2", ""},
		{"a name for each of two tables", "A: b\nA: 1\nA: c\nA: 2\n", "A.b 1, A.c 2", ""},
		{"no values", "A: b\nC: d\nC: 1\n", "C.d 1", `table "A" has names but no values`},
		{"no values at the end", "A: b\n", "", `table "A" has names but no values`},
		{"fewer values", "A: b c\nA: 1\nC: d\nC: 1\n", "C.d 1", `table "A": 2 names but 1 values`},
		{"more values", "A: b\nA: 1 2\n", "", `table "A": 1 names but 2 values`},
		{"cut off in a number", "A: b\nA: 12", "", "cut off"},
		{"cut off in a name", "A: b\nA: 1\nC: dro", "A.b 1", "cut off"},
		{"no table", "b c\n1 2\n", "", `line "b c" names no table`},
		{"no columns", "A:\nA:\n", "", ""},
		{"empty lines", "\nA: b\n\nA: 1\n", "A.b 1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseTables([]byte(c.text), "/proc/net/snmp")
			check(t, values, err, c.want, c.wantErr)
		})
	}
}

// check compares values in the form "NAME NUMBER, NAME NUMBER".
func check(t *testing.T, values []Value, err error, want, wantErr string) {
	t.Helper()
	var got []string
	for _, v := range values {
		got = append(got, v.Name+" "+strconv.FormatUint(v.Value, 10))
	}
	if diff := cmp.Diff(want, strings.Join(got, ", ")); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	switch {
	case wantErr == "" && err != nil:
		t.Error(err)
	case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)):
		t.Errorf("error %v, want %q", err, wantErr)
	}
}

func TestParsePairs(t *testing.T) {
	text := "Ip6InNoRoutes                   \t5\nIcmp6InErrors 6\nUdpLite6RcvbufErrors 7\nIcmp6InType136 8\n" +
		"New6Thing 9\nplain 10\n6x 11\nIp6 12\nIp6Level -3\n\nUdp6NoPorts x\nUdp6NoPorts\n"
	values, err := parseSNMP6([]byte(text), "/proc/net/snmp6")
	check(t, values, err, "Ip6.InNoRoutes 5, Icmp6.InErrors 6, UdpLite6.RcvbufErrors 7, Icmp6.InType136 8, "+
		"New6.Thing 9, snmp6.plain 10, snmp6.6x 11, snmp6.Ip6 12", `counter "Udp6.NoPorts": strconv.ParseUint`)
	values, err = parseXfrm([]byte("XfrmInPolBlock          \t18446744073709551615\nXfrmNew 1"), "/proc/net/xfrm_stat")
	check(t, values, err, "xfrm.XfrmInPolBlock 18446744073709551615", "cut off")
}

func TestParseSockstat(t *testing.T) {
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "", ""},
		{"one", "TCP: inuse 1 mem 2\n", "TCP.inuse 1, TCP.mem 2", ""},
		{"a new kind", "MPTCP: inuse 4 New_thing 5\n", "MPTCP.inuse 4, MPTCP.New_thing 5", ""},
		{"below 0", "UDP: inuse 3 mem -2\n", "UDP.inuse 3", ""},
		{"no number", "UDP: inuse 3 mem\n", "UDP.inuse 3", `table "UDP": "mem" has no value`},
		{"a word", "UDP: inuse x mem 2\nRAW: inuse 1\n", "RAW.inuse 1", `counter "UDP.inuse"`},
		{"no kind", ": inuse 1\n", "", "names no kind of sockets"},
		{"no colon", "sockets used 1\n", "", "names no kind of sockets"},
		{"cut off", "TCP: inuse 1\nUDP: inuse 12", "TCP.inuse 1", "cut off"},
		{"nothing in it", "TCP:\n\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseSockstat([]byte(c.text), "/proc/net/sockstat")
			check(t, values, err, c.want, c.wantErr)
			for _, v := range values {
				if !v.Level {
					t.Errorf("%s is a level", v.Name)
				}
			}
		})
	}
}

func TestParseOtherPairs(t *testing.T) {
	values, err := parseSCTP([]byte("SctpCurrEstab   \t3\nSctpOutOfBlues 4\nNewThing 5\nSctp 6\n"), "/proc/net/sctp/snmp")
	check(t, values, err, "Sctp.CurrEstab 3, Sctp.OutOfBlues 4, sctp.NewThing 5, sctp.Sctp 6", "")
	if values[1].Command != "nstat -az SctpOutOfBlues" {
		t.Errorf("%+v", values[1])
	}
	values, err = parseTLS([]byte("TlsCurrTxSw 1\nTlsDecryptError 2\n"), "/proc/net/tls_stat")
	check(t, values, err, "tls.TlsCurrTxSw 1, tls.TlsDecryptError 2", "")
}
