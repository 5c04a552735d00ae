package counter

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTables(t *testing.T) {
	values, err := parseTables(load(t, "snmp-3.10"), "/proc/net/snmp")
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
		case "Ip.Forwarding", "Ip.DefaultTTL", "Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.MaxConn", "Tcp.CurrEstab":
			t.Errorf("%s is no counter", v.Name)
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
		"New6.Thing 9, snmp6.plain 10, snmp6.6x 11, snmp6.Ip6 12", `counter "Udp6NoPorts": strconv.ParseUint`)
	values, err = parseXfrm([]byte("XfrmInPolBlock          \t18446744073709551615\nXfrmNew 1"), "/proc/net/xfrm_stat")
	check(t, values, err, "xfrm.XfrmInPolBlock 18446744073709551615", "cut off")
}

func TestParseSoftnet(t *testing.T) {
	for _, c := range []struct {
		sample, want string
		cpus         []int
		columns      int
	}{
		{
			"softnet_stat-10columns", "softnet.processed 4351131216, softnet.dropped 8, softnet.time_squeeze 21, softnet.received_rps 17",
			[]int{-1, -1, -1},
			10,
		},
		{
			"softnet_stat-11columns", "softnet.processed 3705202568, softnet.dropped 48, softnet.time_squeeze 3, softnet.received_rps 3, softnet.flow_limit_count 47",
			[]int{-1, -1},
			11,
		},
		{
			"softnet_stat-13columns", "softnet.processed 40218233, softnet.dropped 11, softnet.time_squeeze 715, softnet.received_rps 0, softnet.flow_limit_count 0",
			[]int{0, 2, 3},
			13,
		},
	} {
		t.Run(c.sample, func(t *testing.T) {
			text := load(t, c.sample)
			values, err := parseSoftnetValues(text, "/proc/net/softnet_stat")
			check(t, values, err, c.want, "")
			cpus, err := parseSoftnet(text, "/proc/net/softnet_stat")
			if err != nil {
				t.Fatal(err)
			}
			var numbers []int
			for _, cpu := range cpus {
				numbers = append(numbers, cpu.cpu)
				if cpu.columns != c.columns {
					t.Errorf("%d columns, want %d", cpu.columns, c.columns)
				}
			}
			if diff := cmp.Diff(c.cpus, numbers); diff != "" {
				t.Errorf("CPUs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseSoftnetEdges(t *testing.T) {
	nine := strings.Repeat("00000001 ", 9)
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "", ""},
		{"9 columns, before 2.6.35", nine + "\n", "softnet.processed 1, softnet.dropped 1, softnet.time_squeeze 1", ""},
		{"16 columns, of a kernel to come", nine + strings.Repeat("2 ", 7) + "\n", "softnet.processed 1, softnet.dropped 1, softnet.time_squeeze 1, softnet.received_rps 2, softnet.flow_limit_count 2", ""},
		{"8 columns", nine[9:] + "\n", "", "8 columns"},
		{"two forms", nine + "\n" + nine + "1\n", "", "lines of 9 and of 10 columns"},
		{"cut off", nine + "\n" + nine, "", "cut off"},
		{"above 32 bits", "100000000 " + nine + "\n", "", "out of range"},
		{"no number", "x " + nine + "\n", "", "column 1"},
		{"an empty line", nine + "\n\n", "", "0 columns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseSoftnetValues([]byte(c.text), "/proc/net/softnet_stat")
			check(t, values, err, c.want, c.wantErr)
		})
	}
}

func TestParseStat(t *testing.T) {
	values, err := parseConntrack(load(t, "nf_conntrack-4.19"), "/proc/net/stat/nf_conntrack")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{
		"nf_conntrack.searched": 0, "nf_conntrack.found": 0x20, "nf_conntrack.invalid": 0x1b,
		"nf_conntrack.insert_failed": 3 + math.MaxUint32, "nf_conntrack.drop": 6,
		"nf_conntrack.early_drop": 2, "nf_conntrack.search_restart": 5,
	} {
		if got := value(t, values, name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "", ""},
		{"names alone", "entries a\n", "x.a 0", ""},
		{"largest", "a\nffffffffffffffff\n", "x.a 18446744073709551615", ""},
		{"sum too large", "a\nffffffffffffffff\n1\n", "", "above 64 bits"},
		{"too large", "a\n10000000000000000\n", "", "out of range"},
		{"fewer values", "a b\n1\n", "", "2 names but 1 values"},
		{"more values", "a b\n1 2 3\n", "x.a 1, x.b 2", ""},
		{"negative", "a\n-1\n", "", "column 1"},
		{"cut off", "a\n1\n2", "", "cut off"},
		{"no names", "\n1\n", "", "names no column"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parsePerCPU([]byte(c.text), "/proc/net/stat/x")
			check(t, values, err, c.want, c.wantErr)
		})
	}
}
