package counter

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/testkit"
)

// fixture is a file of /proc of some kernel.
type fixture struct {
	kernel, name string // folder and file below testdata/proc
	text         []byte
	file         file
}

// fixtures are all of them but those that are parsed in another way: the files
// of devices and interrupts.
func fixtures(t testing.TB) []fixture {
	t.Helper()
	paths, err := filepath.Glob("testdata/proc/*/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []fixture
	for _, path := range paths {
		f := fixture{kernel: filepath.Base(filepath.Dir(path)), name: filepath.Base(path)}
		if f.name == "dev" || f.name == "interrupts" || strings.HasPrefix(f.name, "dev_snmp6-") || f.kernel == "reconstructed-interrupts" {
			continue
		}
		if f.text, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		f.file = fileOf(t, f)
		all = append(all, f)
	}
	if len(all) < 100 {
		t.Fatalf("only %d files", len(all))
	}
	return all
}

func fixturesOf(t testing.TB, name string) []fixture {
	t.Helper()
	some := slices.DeleteFunc(fixtures(t), func(f fixture) bool { return f.file.name != name })
	if len(some) == 0 {
		t.Fatalf("no %s", name)
	}
	return some
}

// fileOf is the source that a fixture stands for.
func fileOf(t testing.TB, f fixture) file {
	t.Helper()
	name := strings.Replace(f.name, "_snmp", "/snmp", 1)
	if f.kernel == "reconstructed-softnet" {
		name = "softnet_stat"
	}
	for _, known := range append(netnsFiles(), hostFiles()...) {
		if known.name == name || known.name == "stat/"+name {
			known.online = nil
			return known
		}
	}
	if f.kernel != "reconstructed-other" {
		t.Fatalf("%s/%s is no source", f.kernel, f.name)
	}
	return statFile(name, "")
}

// sheetOf is an empty sheet of a source.
func sheetOf(f file) *sheet { return &newFileSet("", "", []file{f}).files[0].sheet }

// parse makes values of a fixture.
func (f fixture) parse(t *testing.T) []Value {
	t.Helper()
	s := sheetOf(f.file)
	if err := f.file.scan(s, f.text); err != nil {
		t.Fatalf("%s/%s: %v", f.kernel, f.name, err)
	}
	wellFormed(t, s.all(), f.file.source())
	return s.all()
}

// TestGenerations compares the values of each kernel with its golden file.
func TestGenerations(t *testing.T) {
	byKernel := map[string][]Value{}
	for _, f := range fixtures(t) {
		byKernel[f.kernel] = append(byKernel[f.kernel], f.parse(t)...)
	}
	for kernel, values := range byKernel {
		t.Run(kernel, func(t *testing.T) {
			testkit.Golden(t, filepath.Join("testdata/proc", kernel+".golden"), listing(values))
		})
	}
}

// TestEveryColumn reads the files with names once more, the simple way: every
// column is a value, but the one that is below 0.
func TestEveryColumn(t *testing.T) {
	total := 0
	for _, f := range fixtures(t) {
		want := plainly(string(f.text), f.name)
		if want == nil {
			continue
		}
		var got []string
		for _, v := range f.parse(t) {
			got = append(got, strings.Replace(v.Name, ".", "", 1)+" "+strconv.FormatUint(v.Value, 10))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s/%s (-want +got):\n%s", f.kernel, f.name, diff)
		}
		total += len(got)
	}
	if total < 3000 {
		t.Errorf("only %d columns", total)
	}
}

// plainly is every "NAME NUMBER" of a text, or nil where it has no names beside
// the numbers.
func plainly(text, name string) []string {
	var all []string
	add := func(table, field, number string) {
		if !strings.HasPrefix(number, "-") {
			all = append(all, table+field+" "+number)
		}
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	switch name {
	case "snmp", "netstat":
		for i := 0; i+1 < len(lines); i += 2 {
			names, numbers := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < len(names); j++ {
				add(strings.TrimSuffix(names[0], ":"), names[j], numbers[j])
			}
		}
	case "snmp6", "xfrm_stat", "tls_stat", "sctp_snmp":
		prefix := map[string]string{"xfrm_stat": "xfrm", "tls_stat": "tls"}[name]
		for _, line := range lines {
			f := strings.Fields(line)
			add(prefix, f[0], f[1])
		}
	case "sockstat", "sockstat6":
		for _, line := range lines {
			f := strings.Fields(line)
			for j := 1; j < len(f); j += 2 {
				add(strings.TrimSuffix(f[0], ":"), f[j], f[j+1])
			}
		}
	}
	return all
}

// TestTextsTruncated cuts every text at every byte. What is then still reported
// must be the same as in the whole text: a number that lost its last digits is
// worse than none.
func TestTextsTruncated(t *testing.T) {
	for _, f := range fixtures(t) {
		if f.name == "nf_flowtable" {
			continue // a CPU can be below 0
		}
		whole := f.parse(t)
		s := sheetOf(f.file)
		// The sums of fewer CPUs are smaller, and no line says how many there
		// are to be.
		sums := plainly(string(f.text), f.name) == nil
		for n := range len(f.text) {
			err := f.file.scan(s, f.text[:n])
			if n > 0 && f.text[n-1] != '\n' && err == nil {
				t.Fatalf("%s/%s: no error for %d of %d bytes", f.kernel, f.name, n, len(f.text))
			}
			for i, v := range s.all() {
				w := whole[i]
				if sums {
					w, _ = find1(whole, v)
				}
				if v.Name != w.Name || v.Value > w.Value || !sums && v.Value != w.Value {
					t.Fatalf("%s/%s, %d bytes: %s %d, want %s %d", f.kernel, f.name, n, v.Name, v.Value, w.Name, w.Value)
				}
			}
		}
	}
}

// find1 is the value of the same name and part.
func find1(values []Value, like Value) (Value, bool) {
	for _, v := range values {
		if v.Name == like.Name && v.Object == like.Object {
			return v, true
		}
	}
	return Value{}, false
}

// TestSheetAgain fills one sheet with the texts of all kernels in turn, there
// and back. Nothing of a text must be left in the next.
func TestSheetAgain(t *testing.T) {
	byFile := map[string][]fixture{}
	for _, f := range fixtures(t) {
		byFile[f.file.name] = append(byFile[f.file.name], f)
	}
	for name, texts := range byFile {
		s := sheetOf(texts[0].file)
		back := slices.Clone(texts)
		slices.Reverse(back)
		for _, f := range append(texts, back...) {
			if err := f.file.scan(s, f.text); err != nil {
				t.Fatalf("%s of %s: %v", name, f.kernel, err)
			}
			if diff := cmp.Diff(string(listing(f.parse(t))), string(listing(s.all()))); diff != "" {
				t.Errorf("%s of %s, after another (-want +got):\n%s", name, f.kernel, diff)
			}
		}
	}
}

// TestSheetNames: names that differ in one place alone are not taken for each
// other.
func TestSheetNames(t *testing.T) {
	s := sheetOf(file{name: "snmp", scan: scanTables})
	for _, step := range []struct{ text, want string }{
		{"Ab: cd\nAb: 1\n", "Ab.cd 1"},
		{"Xb: cd\nXb: 2\n", "Xb.cd 2"},
		{"Xb: ce\nXb: 3\n", "Xb.ce 3"},
		{"X: bce\nX: 4\n", "X.bce 4"},
		{"X: bcef\nX: 5\n", "X.bcef 5"},
		{"X: bce g\nX: 6 7\n", "X.bce 6, X.g 7"},
		{"X: g\nX: 8\n", "X.g 8"},
	} {
		err := scanTables(s, []byte(step.text))
		check(t, s.all(), err, step.want, "")
	}
}

// TestSheetKeepsCopies: values that were copied stay as they are.
func TestSheetKeepsCopies(t *testing.T) {
	s := sheetOf(file{name: "snmp", scan: scanTables})
	for i, text := range []string{"A: b c\nA: 1 2\n", "A: b x c\nA: 3 4 5\n", "A: b\nA: 6\n"} {
		if err := scanTables(s, []byte(text)); err != nil {
			t.Fatal(err)
		}
		copied := slices.Clone(s.all())
		before := string(listing(copied))
		if err := scanTables(s, []byte("Q: z\nQ: 9\n")); err != nil {
			t.Fatal(err)
		}
		if after := string(listing(copied)); after != before || len(copied) != []int{2, 3, 1}[i] {
			t.Errorf("%q became %q", before, after)
		}
	}
}

// TestLevels: what is a level in the files, and nothing else.
func TestLevels(t *testing.T) {
	levels := map[string]bool{}
	for _, f := range fixtures(t) {
		for _, v := range f.parse(t) {
			if v.Level {
				levels[v.Name] = true
			}
		}
	}
	var got []string
	for name := range levels {
		if table, _, _ := strings.Cut(name, "."); strings.ToUpper(table) != table { // sockstat
			got = append(got, name)
		}
	}
	slices.Sort(got)
	want := strings.Fields("Ip.DefaultTTL Ip.Forwarding MPTcpExt.MPCurrEstab Sctp.CurrEstab " +
		"Tcp.CurrEstab Tcp.RtoAlgorithm Tcp.RtoMax Tcp.RtoMin arp_cache.entries clip_arp_cache.entries " +
		"ndisc_cache.entries nf_flowtable.wq_add nf_flowtable.wq_del nf_flowtable.wq_stats rt_cache.entries " +
		"sockets.used softnet.backlog_len softnet.input_qlen softnet.process_qlen " +
		"tls.TlsCurrRxDevice tls.TlsCurrRxSw tls.TlsCurrTxDevice tls.TlsCurrTxSw")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}
}

func TestParseFlowtable(t *testing.T) {
	f := fixturesOf(t, "stat/nf_flowtable")[0]
	check(t, f.parse(t), nil, "nf_flowtable.wq_add 8, nf_flowtable.wq_del 2, nf_flowtable.wq_stats 2", "")
	s := sheetOf(f.file)
	err := scanFlowtable(s, bytes.Replace(f.text, []byte("-3"), []byte("99999999999"), 1))
	check(t, s.all(), err, "", "column 2")
}
