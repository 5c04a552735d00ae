package archtest

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The hard limits. The aim is 60 lines a function.
const (
	maxFileLines = 500
	maxFuncLines = 80
)

// rule is a property of the whole tree, with the reason for it.
type rule struct {
	name string
	find func(*tree) []string // what breaks it
	why  string
}

// rules are all rules but the direction of imports.
var rules = []rule{
	{
		"testkit only in tests", importersOf("internal/testkit"),
		"testkit fails tests and runs programs: neither belongs into the binary",
	},
	{
		"lab only by cli", importersOf("internal/lab", "internal/cli"),
		"lab makes packets get lost: only a command that a person typed may come to it",
	},
	{
		"no programs", selects(butCure, map[string][]string{
			"os/exec": nil, "C": nil, "plugin": nil, "os": {"StartProcess"},
			"syscall":               {"Exec", "ForkExec", "StartProcess"},
			"golang.org/x/sys/unix": {"Exec"},
		}),
		"whydrop asks the kernel itself: output of ip, tc, nft or ss differs by version, and running it is a risk for root; the binary is plain Go. The lab alone runs the very commands that were printed, in its own namespace",
	},
	{
		"no clock and no output in pure code", selects(inRooms("record", "internal/diagnose", "internal/report", "internal/packet"), map[string][]string{
			"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"},
			"fmt":  {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
		}),
		"the result may depend on the record alone, and goes to the writer or value that the caller gave",
	},
	{
		"no init", inits,
		"what happens before main cannot be chosen, ordered or tested; call it where it is needed",
	},
	{
		"package comments", packageComments,
		"every package says what it holds and what it must not do, where its reader looks first",
	},
	{
		"file size", longFiles,
		fmt.Sprintf("a file has at most %d lines: split the parser, the loop and the constructor", maxFileLines),
	},
	{
		"function size", longFuncs,
		fmt.Sprintf("a function has at most %d lines, better 60 (tables in tests are not counted)", maxFuncLines),
	},
	{
		"no numbers of drop reasons", numbers,
		"the numbers of drop reasons move between kernels: names come from the running kernel's BTF or tracefs",
	},
	{
		"root tests by name and tag", rootTests,
		"make root finds the tests that need root by the suffix _root_test.go, and go test keeps the others from them by the tag",
	},
	{
		"licence of C", licences,
		"the kernel loads BPF code that uses its GPL-only helpers under a compatible licence only, and each file says its own",
	},
}

// product says whether a file is compiled into the binary by hand-written
// code: no test, no helper of tests, no tool, and not generated.
func product(f goFile) bool { return f.product() && !f.generated }

func (f goFile) product() bool {
	top, _, _ := strings.Cut(f.dir, "/")
	return !f.test && slices.Contains([]string{".", "cmd", "internal", "record", "knowledge"}, top) &&
		!under(f.dir, "internal/testkit") && !under(f.dir, "internal/archtest")
}

// butCure is product code without the one room that runs programs.
func butCure(f goFile) bool { return product(f) && !under(f.dir, "internal/lab/cure") }

// inRooms selects product code in these folders.
func inRooms(dirs ...string) func(goFile) bool {
	return func(f goFile) bool {
		return product(f) && slices.ContainsFunc(dirs, func(d string) bool { return under(f.dir, d) })
	}
}

// importersOf finds product code that imports pkg and lies in none of the
// folders but.
func importersOf(pkg string, but ...string) func(*tree) []string {
	return func(t *tree) []string {
		var bad []string
		for _, f := range t.files {
			if !f.product() || under(f.dir, pkg) || slices.ContainsFunc(but, func(d string) bool { return under(f.dir, d) }) {
				continue
			}
			for _, imp := range f.imports {
				if under(imp, pkg) {
					bad = append(bad, f.path+" imports "+imp)
				}
			}
		}
		return bad
	}
}

// selects finds files that use one of the names of a package, or that import
// it at all where no names are given.
func selects(in func(goFile) bool, names map[string][]string) func(*tree) []string {
	return func(t *tree) []string {
		var bad []string
		for _, f := range t.files {
			if !in(f) {
				continue
			}
			for _, imp := range f.imports {
				forbidden, listed := names[imp]
				if listed && forbidden == nil {
					bad = append(bad, f.path+" imports "+imp)
				}
				for _, used := range f.uses[imp] {
					if slices.Contains(forbidden, used) {
						bad = append(bad, fmt.Sprintf("%s uses %s.%s", f.path, path.Base(imp), used))
					}
				}
			}
		}
		return bad
	}
}

func inits(t *tree) []string {
	var bad []string
	for _, f := range t.files {
		if product(f) && f.inits > 0 {
			bad = append(bad, f.path+" has a func init")
		}
	}
	return bad
}

// mustNot is how a package comment draws its border.
var mustNot = regexp.MustCompile(`(?i)\b(not|never|no|nor|nothing|only)\b`)

func packageComments(t *tree) []string {
	type pkg struct{ dir, name string }
	docs := map[pkg]string{}
	for _, f := range t.files {
		if !f.test {
			docs[pkg{f.dir, f.pkg}] += f.doc
		}
	}
	var bad []string
	for p, doc := range docs {
		begin := "Package " + p.name + " "
		if p.name == "main" {
			begin = "Command " + path.Base(p.dir) + " "
		}
		switch {
		case !strings.HasPrefix(doc, begin):
			bad = append(bad, fmt.Sprintf("%s has no package comment that begins with %q", p.dir, begin))
		case !mustNot.MatchString(doc):
			bad = append(bad, fmt.Sprintf("%s: its package comment does not say what the package must not do", p.dir))
		}
	}
	slices.Sort(bad)
	return bad
}

func longFiles(t *tree) []string {
	var bad []string
	for _, f := range t.files {
		if !f.generated && f.lines > maxFileLines {
			bad = append(bad, fmt.Sprintf("%s has %d lines", f.path, f.lines))
		}
	}
	return bad
}

func longFuncs(t *tree) []string {
	var bad []string
	for _, f := range t.files {
		for _, fn := range f.funcs {
			n := fn.lines
			if f.test {
				n -= fn.tableLines
			}
			if !f.generated && n > maxFuncLines {
				bad = append(bad, fmt.Sprintf("%s:%d: %s has %d lines", f.path, fn.line, fn.name, n))
			}
		}
	}
	return bad
}

// cNumber is an enumerator or macro that gives a drop reason a number.
var cNumber = regexp.MustCompile(`\bSKB_DROP_REASON_[A-Z0-9_]+\s*(=\s*|\s)(0x)?[0-9]`)

func numbers(t *tree) []string {
	var bad []string
	for _, f := range t.files {
		if f.product() && len(f.tables) > 0 {
			bad = append(bad, fmt.Sprintf("%s gives %s a number", f.path, strings.Join(f.tables, ", ")))
		}
	}
	for name, text := range t.c {
		if m := cNumber.FindString(text); m != "" {
			bad = append(bad, fmt.Sprintf("%s has %q", name, m))
		}
	}
	slices.Sort(bad)
	return bad
}

func rootTests(t *tree) []string {
	var bad []string
	for _, f := range t.files {
		if named := strings.HasSuffix(f.path, "_root_test.go"); named != f.rootTag {
			bad = append(bad, fmt.Sprintf("%s: named _root_test.go is %v, has //go:build root is %v", f.path, named, f.rootTag))
		}
	}
	return bad
}

func licences(t *tree) []string {
	var bad []string
	for name, text := range t.c {
		first, _, _ := strings.Cut(text, "\n")
		if !strings.Contains(first, "SPDX-License-Identifier: GPL-2.0-only") {
			bad = append(bad, name+" does not begin with SPDX-License-Identifier: GPL-2.0-only")
		}
	}
	slices.SortFunc(bad, cmp.Compare)
	return bad
}
