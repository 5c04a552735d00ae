package archtest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestTree holds the repository to the rules.
func TestTree(t *testing.T) {
	tr, err := scan(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) < 10 {
		t.Fatalf("found %d Go files: this is not the repository", len(tr.files))
	}
	t.Run("direction of imports", func(t *testing.T) {
		for _, v := range importViolations(tr) {
			t.Error(v)
		}
	})
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, v := range r.find(tr) {
				t.Errorf("%s: %s", v, r.why)
			}
		})
	}
}

// TestRooms asks each row of rooms about every room, so that a row that
// allows too much or too little is seen here.
func TestRooms(t *testing.T) {
	folder := func(dir string) string { return strings.Replace(dir, "*", "some", 1) }
	for _, r := range rooms {
		if r.why == "" {
			t.Errorf("%s: no reason", r.dir)
		}
		from := folder(r.dir)
		for _, other := range rooms {
			imp := folder(other.dir)
			got := violationsOf(t, map[string]string{from + "/a.go": imports(module + "/" + imp)})
			want := other.dir != r.dir && !slices.Contains(r.may, other.dir)
			if (len(got) > 0) != want {
				t.Errorf("%s imports %s: forbidden is %v, want %v", from, imp, !want, want)
			}
			if len(got) > 0 && !strings.HasSuffix(got[0], r.why) {
				t.Errorf("%s imports %s: %q does not give the reason", from, imp, got[0])
			}
		}
	}
}

func imports(paths ...string) string {
	var b strings.Builder
	b.WriteString("package a\n")
	for _, p := range paths {
		fmt.Fprintf(&b, "import _ %q\n", p)
	}
	return b.String()
}

func violationsOf(t *testing.T, files map[string]string) []string {
	t.Helper()
	return importViolations(scanFiles(t, files))
}

func scanFiles(t *testing.T, files map[string]string) *tree {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tr, err := scan(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestImportViolations(t *testing.T) {
	for _, tt := range []struct {
		path, imp string
		bad       bool
	}{
		{"internal/diagnose/a.go", "os", true},
		{"internal/diagnose/a.go", "net", true},
		{"internal/diagnose/a.go", "net/netip", false},
		{"internal/diagnose/a.go", "net/http", true},
		{"internal/diagnose/a.go", "unsafe", true},
		{"internal/diagnose/a.go", "go.yaml.in/yaml/v3", false},
		{"internal/diagnose/a.go", "github.com/vishvananda/netlink", true},
		{"internal/diagnose/rank/a.go", "os", true},
		{"internal/diagnose/rank/a.go", module + "/internal/diagnose", false},
		{"internal/diagnose/a_test.go", "os", false},
		{"internal/report/a.go", "github.com/cilium/ebpf", true},
		{"internal/report/a.go", "golang.org/x/sys/unix", true},
		{"internal/report/a.go", module + "/internal/diagnose", true},
		{"internal/probe/skbdrop/a.go", module + "/internal/probe/tcpretrans", true},
		{"internal/probe/skbdrop/a.go", module + "/internal/probe/skbdrop/sub", false},
		{"internal/probe/skbdrop/a.go", "github.com/cilium/ebpf/link", false},
		{"internal/counter/a.go", "github.com/cilium/ebpf/btf", true},
		{"internal/counter/a.go", "github.com/vishvananda/netlink", false},
		{"internal/fact/a.go", "github.com/cilium/ebpf", true},
		{"internal/netns/a.go", "github.com/cilium/ebpf", true},
		{"record/a.go", "github.com/google/go-cmp/cmp", true},
		{"record/a.go", "encoding/json", false},
		{"record/a.go", "net/netip", false},
		{"record/a.go", "os", true},
		{"record/a.go", "os/user", true},
		{"knowledge/embed.go", "embed", false},
		{"knowledge/load.go", "go.yaml.in/yaml/v3", true},
		{"cmd/whydrop/main.go", "os", false},
		{"internal/newroom/a.go", "fmt", true},
		{"a.go", "fmt", true},
		{"tools/x/a.go", "os/exec", false},
		{"internal/testkit/a.go", "testing", false},
	} {
		got := violationsOf(t, map[string]string{tt.path: imports(tt.imp)})
		if (len(got) > 0) != tt.bad {
			t.Errorf("%s imports %s: got %q, want a violation: %v", tt.path, tt.imp, got, tt.bad)
		}
	}
}

// doc is a package comment that the rules accept.
const doc = "// Package a holds examples and must not hold more.\n"

// example is a tree and the rule that it breaks; empty if it breaks none.
type example struct {
	name   string
	breaks string
	files  map[string]string
}

func lines(n int, line string) string { return strings.Repeat(line+"\n", n) }

func one(name, text string) map[string]string { return map[string]string{name: text} }

var examples = []example{
	{"testkit in product code", "testkit only in tests", one("internal/observe/a.go", doc+imports(module+"/internal/testkit"))},
	{"testkit in a test", "", one("internal/observe/a_test.go", imports(module+"/internal/testkit"))},
	{"lab in observe", "lab only by cli", one("internal/observe/a.go", doc+imports(module+"/internal/lab/netlab"))},
	{"lab in cli", "", one("internal/cli/a.go", doc+imports(module+"/internal/lab"))},
	{"os/exec", "no programs", one("internal/fact/a.go", doc+imports("os/exec"))},
	{"os/exec in a test", "", one("internal/fact/a_test.go", imports("os/exec"))},
	{"os/exec where remedies are tried", "", one("internal/lab/cure/a.go", doc+imports("os/exec"))},
	{"os/exec elsewhere in the lab", "no programs", one("internal/lab/a.go", doc+imports("os/exec"))},
	{"os/exec in testkit", "", one("internal/testkit/a.go", doc+imports("os/exec"))},
	{"os.StartProcess", "no programs", one("internal/fact/a.go", doc+"package a\nimport \"os\"\nvar _ = os.StartProcess\n")},
	{"unix.Exec renamed", "no programs", one("internal/fact/a.go", doc+"package a\nimport sys \"golang.org/x/sys/unix\"\nvar _ = sys.Exec\n")},
	{"os.Open", "", one("internal/fact/a.go", doc+"package a\nimport \"os\"\nvar _ = os.Open\n")},
	{"cgo", "no programs", one("internal/fact/a.go", doc+"package a\nimport \"C\"\n")},
	{"time.Now", "no clock and no output in pure code", one("internal/diagnose/a.go", doc+"package a\nimport \"time\"\nfunc f() { time.Now() }\n")},
	{"time.Now renamed", "no clock and no output in pure code", one("record/a.go", doc+"package a\nimport t \"time\"\nvar now = t.Now\n")},
	{"time.Now where it may be", "", one("internal/observe/a.go", doc+"package a\nimport \"time\"\nfunc f() { time.Now() }\n")},
	{"time.Duration", "", one("internal/diagnose/a.go", doc+"package a\nimport \"time\"\nconst d = time.Second\n")},
	{"fmt.Println", "no clock and no output in pure code", one("internal/report/a.go", doc+"package a\nimport \"fmt\"\nfunc f() { fmt.Println() }\n")},
	{"fmt.Fprintln", "", one("internal/report/a.go", doc+"package a\nimport \"fmt\"\nfunc f() { fmt.Fprintln(nil) }\n")},
	{"init", "no init", one("internal/fact/a.go", doc+"package a\nfunc init() {}\n")},
	{"a method called init", "", one("internal/fact/a.go", doc+"package a\ntype x struct{}\nfunc (x) init() {}\n")},
	{"generated init", "", one("internal/fact/a.go", "// Code generated by x; DO NOT EDIT.\n\n"+doc+"package a\nfunc init() {}\n")},
	{"no package comment", "package comments", one("internal/fact/a.go", "package a\n")},
	{"comment apart from the package", "package comments", one("internal/fact/a.go", doc+"\npackage a\n")},
	{"comment without a border", "package comments", one("internal/fact/a.go", "// Package a holds examples.\npackage a\n")},
	{"comment in another file", "", map[string]string{"internal/fact/a.go": "package a\n", "internal/fact/doc.go": doc + "package a\n"}},
	{"command", "", one("cmd/whydrop/main.go", "// Command whydrop must not do anything itself.\npackage main\n")},
	{"command that calls itself a package", "package comments", one("cmd/whydrop/main.go", "// Package main must not do anything itself.\npackage main\n")},
	{"a long file", "file size", one("internal/fact/a.go", doc+"package a\n"+lines(499, ""))},
	{"a file of 500 lines", "", one("internal/fact/a.go", doc+"package a\n"+lines(498, ""))},
	{"a long test file", "file size", one("internal/fact/a_test.go", "package a\n"+lines(500, ""))},
	{"a long generated file", "", one("internal/fact/a.go", "// Code generated by x; DO NOT EDIT.\n\n"+doc+"package a\n"+lines(499, ""))},
	{"a long function", "function size", one("internal/fact/a.go", doc+"package a\nfunc f() {\n"+lines(79, "\tg()")+"}\n")},
	{"a function of 80 lines", "", one("internal/fact/a.go", doc+"package a\nfunc f() {\n"+lines(78, "\tg()")+"}\n")},
	{"a long function literal", "function size", one("internal/fact/a.go", doc+"package a\nvar f = func() {\n"+lines(79, "\tg()")+"}\n")},
	{"a long table", "function size", one("internal/fact/a.go", doc+"package a\nfunc f() {\n\tg([]int{\n"+lines(79, "\t\t1,")+"\t})\n}\n")},
	{"a long table in a test", "", one("internal/fact/a_test.go", "package a\nfunc f() {\n\tg([]int{\n"+lines(79, "\t\t1,")+"\t})\n}\n")},
	{"reasons by number", "no numbers of drop reasons", one("internal/kernel/a.go", doc+"package a\nvar m = map[int]string{3: \"NO_SOCKET\"}\n")},
	{"numbers by reason", "no numbers of drop reasons", one("internal/kernel/a.go", doc+"package a\nvar m = map[string]int{\"SKB_DROP_REASON_NETFILTER_DROP\": 8}\n")},
	{"reasons by place", "no numbers of drop reasons", one("internal/kernel/a.go", doc+"package a\nvar m = []string{\"NOT_SPECIFIED\", \"NO_SOCKET\"}\n")},
	{"reasons by name", "", one("internal/kernel/a.go", doc+"package a\nvar m = map[string]string{\"NO_SOCKET\": \"nobody listens\"}\n")},
	{"reasons by number in a test", "", one("internal/kernel/a_test.go", "package a\nvar m = map[int]string{3: \"NO_SOCKET\"}\n")},
	{"reasons by number in C", "no numbers of drop reasons", one("internal/probe/x/x.bpf.c", "// SPDX-License-Identifier: GPL-2.0-only\nenum { SKB_DROP_REASON_NO_SOCKET = 3 };\n")},
	{"root test without the tag", "root tests by name and tag", one("internal/lab/a_root_test.go", "package a\n")},
	{"root test without the name", "root tests by name and tag", one("internal/lab/a_test.go", "//go:build linux && root\n\npackage a\n")},
	{"root test", "", one("internal/lab/a_root_test.go", "//go:build root\n\npackage a\n")},
	{"test without root", "", one("internal/lab/a_test.go", "//go:build linux\n\npackage a\n")},
	{"C without a licence", "licence of C", one("internal/probe/x/x.bpf.c", "int x;\n")},
	{"C with its licence", "", one("internal/probe/x/x.h", "/* SPDX-License-Identifier: GPL-2.0-only */\nint x;\n")},
	{"testdata is not code", "", one("internal/kernel/testdata/a.go", "package a\nfunc init() {}\n")},
}

// TestRules gives every rule the examples: each breaks its rule and no other,
// and every rule has one.
func TestRules(t *testing.T) {
	broken := map[string]bool{}
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			tr := scanFiles(t, e.files)
			var got []string
			for _, r := range rules {
				if len(r.find(tr)) > 0 {
					got = append(got, r.name)
					broken[r.name] = true
				}
			}
			var want []string
			if e.breaks != "" {
				want = []string{e.breaks}
			}
			if !slices.Equal(got, want) {
				t.Errorf("breaks %q, want %q", got, want)
			}
		})
	}
	for _, r := range rules {
		if r.why == "" {
			t.Errorf("rule %q has no reason", r.name)
		}
		if !broken[r.name] {
			t.Errorf("no example breaks the rule %q; broken are %q", r.name, slices.Sorted(maps.Keys(broken)))
		}
	}
}
