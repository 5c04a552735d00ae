package counter

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func addFixtures(f *testing.F, names ...string) {
	for _, name := range names {
		for _, one := range fixturesOf(f, name) {
			f.Add(one.text)
		}
	}
}

func FuzzParseTables(f *testing.F) {
	addFixtures(f, "snmp", "netstat")
	for _, text := range []string{"", "A:", "A: b\nA: -1\n", "A:\nA:\n", "A: b\nC: d\nA: 1\n", ":\n:\n", "A: b\r\nA: 1\r\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, _ := parseTables(text, "x")
		wellFormed(t, values, "x")
		for _, v := range values {
			if !bytes.Contains(text, strconv.AppendUint(nil, v.Value, 10)) {
				t.Errorf("%s %d is not in the text", v.Name, v.Value)
			}
			if v.Name == "Tcp.CurrEstab" && !v.Level {
				t.Error("a level is reported as a counter")
			}
		}
	})
}

func FuzzParsePairs(f *testing.F) {
	addFixtures(f, "snmp6", "xfrm_stat", "tls_stat", "sctp/snmp")
	for _, text := range []string{"", "6 6\n", "a6b -\n", "a6b\t1\n", "x 1 2\n", "Ip6A 18446744073709551615\nIp6B 18446744073709551616\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		six, err6 := parseSNMP6(text, "x")
		wellFormed(t, six, "x")
		xfrm, err := parseXfrm(text, "x")
		wellFormed(t, xfrm, "x")
		if len(six) != len(xfrm) || (err == nil) != (err6 == nil) {
			t.Fatalf("%d and %d values, %v and %v", len(six), len(xfrm), err6, err)
		}
		for i, v := range six {
			if v.Value != xfrm[i].Value || !bytes.Contains(text, strconv.AppendUint(nil, v.Value, 10)) {
				t.Errorf("%s %d is not in the text", v.Name, v.Value)
			}
		}
	})
}

func FuzzParseSoftnet(f *testing.F) {
	addFixtures(f, "softnet_stat")
	f.Add([]byte("\n"))
	f.Add([]byte("1 2 3 4 5 6 7 8 9\n"))
	f.Add([]byte("ffffffff ffffffff ffffffff 0 0 0 0 0 0 ffffffff ffffffff 0 ffffffff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := parseSoftnetValues(text, "x")
		wellFormed(t, values, "x")
		if err != nil {
			if len(values) > 0 && !strings.Contains(err.Error(), "only in the sums") {
				t.Errorf("%d values beside the error %v", len(values), err)
			}
			return
		}
		cpus := bytes.Count(text, []byte("\n"))
		parts := map[string]uint64{}
		for _, v := range values {
			if v.Value > uint64(cpus)<<32 {
				t.Errorf("%s %d for %d CPUs", v.Name, v.Value, cpus)
			}
			if v.Object != "" {
				parts[v.Name] += v.Value
			}
		}
		for _, v := range values {
			if sum, ok := parts[v.Name]; ok && v.Object == "" && sum != v.Value {
				t.Errorf("%s is %d, its parts are %d", v.Name, v.Value, sum)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	addFixtures(f, "stat/rt_cache", "stat/arp_cache", "stat/clip_arp_cache", "stat/nf_flowtable")
	f.Add(load(f, "nf_conntrack-4.19"))
	for _, text := range []string{"", "\n", "a\n", "entries\n1\n", "a b\n1 2 3\n", "a\nffffffffffffffff\n1\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := parsePerCPU(text, "/proc/net/stat/x")
		wellFormed(t, values, "/proc/net/stat/x")
		if err != nil && len(values) > 0 {
			t.Errorf("%d values beside the error %v", len(values), err)
		}
		// A table of twice the lines has twice the sums.
		head, rows, _ := bytes.Cut(text, []byte("\n"))
		double, derr := parsePerCPU(bytes.Join([][]byte{head, append(bytes.Clone(rows), rows...)}, []byte("\n")), "/proc/net/stat/x")
		if err != nil || derr != nil {
			return
		}
		for i, v := range values {
			if want := 2 * v.Value; double[i].Value != want && v.Name != "x.entries" {
				t.Errorf("%s: %d of one table, %d of two", v.Name, v.Value, double[i].Value)
			}
		}
	})
}

func FuzzParseSockstat(f *testing.F) {
	addFixtures(f, "sockstat", "sockstat6")
	for _, text := range []string{"", "a:\n", ": b 1\n", "a: b\n", "a: b 1 c\n", "a: b -1 c 2\n", "a: b: 1\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, _ := parseSockstat(text, "x")
		wellFormed(t, values, "x")
		for _, v := range values {
			if !v.Level || !bytes.Contains(text, strconv.AppendUint(nil, v.Value, 10)) {
				t.Errorf("%+v is no level of the text", v)
			}
		}
	})
}

func FuzzParseSoftirqs(f *testing.F) {
	addFixtures(f, "softirqs")
	for _, text := range []string{"", "CPU0\n", "CPU0\nNET_RX: 1\nNET_RX: 2\n", "CPU7 CPU7\nNET_TX: 1 18446744073709551615\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := parseSoftirqs(text, "x")
		wellFormed(t, values, "x")
		if err != nil {
			return
		}
		var sum, parts uint64
		for _, v := range values {
			if v.Object == "" {
				sum += v.Value
			} else {
				parts += v.Value
			}
		}
		if sum != parts {
			t.Errorf("the sums are %d, the parts %d", sum, parts)
		}
	})
}

// FuzzSheet fills a sheet with two texts, one after the other: the values of
// the second must be those of a new sheet.
func FuzzSheet(f *testing.F) {
	for _, name := range []string{"snmp", "snmp6", "sockstat", "softnet_stat", "stat/rt_cache", "softirqs"} {
		some := fixturesOf(f, name)
		for i := range some[1:] {
			f.Add(uint8(i), some[i].text, some[i+1].text)
		}
	}
	files := append(netnsFiles(), hostFiles()...)
	f.Fuzz(func(t *testing.T, which uint8, first, second []byte) {
		file := files[int(which)%len(files)]
		if file.scan == nil {
			return
		}
		file.online = func() []uint64 { return parseCPUList(first) }
		used, fresh := sheetOf(file), sheetOf(file)
		_ = file.scan(used, first)
		got, want := file.scan(used, second), file.scan(fresh, second)
		if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
			t.Errorf("error %v, want %v", got, want)
		}
		if diff := cmp.Diff(string(listing(fresh.all())), string(listing(used.all()))); diff != "" {
			t.Errorf("(-new +used):\n%s", diff)
		}
	})
}

func FuzzParseDevSNMP6(f *testing.F) {
	f.Add([]byte("ifIndex\t2\nIp6InReceives 5\n"))
	f.Add([]byte("ifIndex 4294967296\n"))
	f.Add([]byte("ifIndex 0\n"))
	f.Add([]byte("ifIndex"))
	f.Fuzz(func(t *testing.T, text []byte) {
		values, _ := parseDevSNMP6(text, "eth0")
		wellFormed(t, values, devSNMP6Source)
		for _, v := range values {
			if v.Value == 0 || v.Device.Index == 0 || v.Device != values[0].Device {
				t.Errorf("%+v", v)
			}
		}
	})
}

// FuzzWord: the words and numbers of a line are those of the standard library,
// but that control characters are spaces too.
func FuzzWord(f *testing.F) {
	for _, text := range []string{"", " a  b\t", "18446744073709551615 18446744073709551616", "00 -1 ff FF 0x1", "\x00a\r"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want := bytes.FieldsFunc(bytes.ToValidUTF8(text, []byte("?")), func(r rune) bool { return r <= ' ' })
		text = bytes.ToValidUTF8(text, []byte("?"))
		if n := countWords(text); n != len(want) {
			t.Fatalf("%d words, want %q", n, want)
		}
		for _, w := range want {
			var got []byte
			if got, text = word(text); !bytes.Equal(got, w) {
				t.Errorf("%q, want %q", got, w)
			}
			v, err := strconv.ParseUint(string(w), 10, 64)
			if got, ok := decimal(w); ok != (err == nil) || ok && got != v {
				t.Errorf("%q is %d (%v), want %d (%v)", w, got, ok, v, err)
			}
			for _, width := range []int{32, 64} {
				v, err := strconv.ParseUint(string(w), 16, width)
				if got, ok := hexadecimal(w, width); ok != (err == nil) || ok && got != v {
					t.Errorf("%q is %#x (%v), want %#x (%v)", w, got, ok, v, err)
				}
			}
		}
	})
}
