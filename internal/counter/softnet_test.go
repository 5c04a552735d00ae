package counter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// totals are the values that are of no part.
func totals(values []Value) []Value {
	return slices.DeleteFunc(slices.Clone(values), func(v Value) bool { return v.Object != "" })
}

// partsOf lists the parts of a value.
func partsOf(values []Value, name string) string {
	var parts []string
	for _, v := range values {
		if v.Name == name && v.Object != "" {
			parts = append(parts, fmt.Sprintf("%s: %d", v.Object, v.Value))
		}
	}
	return strings.Join(parts, ", ")
}

func TestParseSoftnet(t *testing.T) {
	for _, c := range []struct{ sample, want, dropped string }{
		{
			"10columns", "softnet.processed 4351131216, softnet.dropped 8, softnet.time_squeeze 21, softnet.cpu_collision 0, softnet.received_rps 17",
			"",
		},
		{
			"11columns", "softnet.processed 3705202568, softnet.dropped 48, softnet.time_squeeze 3, softnet.cpu_collision 0, " +
				"softnet.received_rps 3, softnet.flow_limit_count 47",
			"",
		},
		{
			"13columns", "softnet.processed 40218233, softnet.dropped 11, softnet.time_squeeze 715, softnet.received_rps 0, " +
				"softnet.flow_limit_count 0, softnet.backlog_len 5",
			"cpu 0: 1, cpu 2: 10, cpu 3: 0",
		},
	} {
		t.Run(c.sample, func(t *testing.T) {
			values, err := parseSoftnetValues(load(t, "proc/reconstructed-softnet/"+c.sample), "/proc/net/softnet_stat")
			check(t, totals(values), err, c.want, "")
			if got := partsOf(values, "softnet.dropped"); got != c.dropped {
				t.Errorf("dropped: %s, want %s", got, c.dropped)
			}
		})
	}
}

// TestSoftnetOnline: before 5.10 the lines are those of the CPUs that are
// online, in their order, if they are as many.
func TestSoftnetOnline(t *testing.T) {
	text := load(t, "proc/reconstructed-softnet/11columns")
	for online, want := range map[string]string{"0,5\n": "cpu 0: 0, cpu 5: 48", "0-2\n": "", "": ""} {
		s := sheet{source: "x", table: []byte("softnet"), online: func() []uint64 { return parseCPUList([]byte(online)) }}
		if err := scanSoftnet(&s, text); err != nil {
			t.Fatal(err)
		}
		if got := partsOf(s.all(), "softnet.dropped"); got != want {
			t.Errorf("online %q: %q, want %q", online, got, want)
		}
	}
}

func TestParseCPUList(t *testing.T) {
	for text, want := range map[string][]uint64{
		"0\n": {0}, "0-3\n": {0, 1, 2, 3}, "0-1,4,6-7\n": {0, 1, 4, 6, 7},
		"": nil, "\n": nil, "a\n": nil, "3-\n": nil, "-3\n": nil, "5-3\n": nil, "1,\n": nil,
	} {
		if diff := cmp.Diff(want, parseCPUList([]byte(text))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	if n := len(parseCPUList([]byte("0-18446744073709551615\n"))); n != maxCPUs+1 {
		t.Errorf("%d CPUs", n)
	}
}

// TestManyCPUs: the sums are of all CPUs, the parts of the first ones.
func TestManyCPUs(t *testing.T) {
	const cpus = maxCPUs + 3
	var soft, irqs strings.Builder
	for i := range cpus {
		fmt.Fprintf(&soft, "1 1 1 0 0 0 0 0 0 0 0 0 %x\n", i)
		fmt.Fprintf(&irqs, " CPU%d", i)
	}
	irqs.WriteString("\nNET_RX:" + strings.Repeat(" 2", cpus) + "\n")
	for _, c := range []struct {
		name  string
		parse func([]byte, string) ([]Value, error)
		text  string
		want  uint64
	}{
		{"softnet.dropped", parseSoftnetValues, soft.String(), cpus},
		{"softirqs.NET_RX", parseSoftirqs, irqs.String(), 2 * cpus},
	} {
		values, err := c.parse([]byte(c.text), "x")
		if err == nil || err.Error() != "parse x: 3 of 1027 CPUs are only in the sums" {
			t.Error(err)
		}
		if got := value(t, values, c.name); got != c.want {
			t.Errorf("%s is %d, want %d", c.name, got, c.want)
		}
		if n := strings.Count(partsOf(values, c.name), "cpu"); n != maxCPUs {
			t.Errorf("%s: %d CPUs", c.name, n)
		}
	}
}

func TestParseSoftirqs(t *testing.T) {
	head := "       CPU0       CPU2\n"
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "", ""},
		{"both", head + "HI: 1 2\nNET_TX: 3 4\nNET_RX: 5 6\n", "softirqs.NET_TX 7, softirqs.NET_RX 11", ""},
		{"other kinds alone", head + "HI: 1 2\n", "", ""},
		{"no heading", "NET_RX: 5 6\n", "", "names no CPU"},
		{"a strange heading", "CPUx\nNET_RX: 5\n", "", "names no CPU"},
		{"fewer numbers", head + "NET_RX: 5\n", "", "2 CPUs but 1 numbers"},
		{"more numbers", head + "NET_RX: 5 6 7\n", "", "2 CPUs but 3 numbers"},
		{"no number", head + "NET_RX: 5 x\n", "", "invalid syntax"},
		{"too large", head + "NET_RX: 18446744073709551615 1\n", "", "above 64 bits"},
		{"cut off", head + "NET_TX: 1 2\nNET_RX: 5 6", "", "cut off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseSoftirqs([]byte(c.text), "/proc/softirqs")
			check(t, totals(values), err, c.want, c.wantErr)
		})
	}
	values, err := parseSoftirqs([]byte(head+"NET_RX: 5 6\n"), "/proc/softirqs")
	if got := partsOf(values, "softirqs.NET_RX"); err != nil || got != "cpu 0: 5, cpu 2: 6" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestParseSoftnetEdges(t *testing.T) {
	nine := strings.Repeat("00000001 ", 9)
	for _, c := range []struct{ name, text, want, wantErr string }{
		{"empty", "", "", ""},
		{"9 columns, before 2.6.35", nine + "\n", "softnet.processed 1, softnet.dropped 1, softnet.time_squeeze 1, softnet.cpu_collision 1", ""},
		{
			"16 columns, of a kernel to come", nine + strings.Repeat("2 ", 7) + "\n",
			"softnet.processed 1, softnet.dropped 1, softnet.time_squeeze 1, softnet.received_rps 2, softnet.flow_limit_count 2, " +
				"softnet.backlog_len 2, softnet.input_qlen 2, softnet.process_qlen 2, softnet.column16 2", "",
		},
		{"8 columns", nine[9:] + "\n", "", "8 columns"},
		{"two forms", nine + "\n" + nine + "1\n", "", "lines of 9 and of 10 columns"},
		{"cut off", nine + "\n" + nine, "", "cut off"},
		{"above 32 bits", "100000000 " + nine + "\n", "", "out of range"},
		{"no number", "x " + nine + "\n", "", "column 1"},
		{"an empty line", nine + "\n\n", "", "0 columns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseSoftnetValues([]byte(c.text), "/proc/net/softnet_stat")
			check(t, totals(values), err, c.want, c.wantErr)
		})
	}
}
