package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// rootSuffix ends the names of the test files that need root. They carry the
// build tag root; internal/archtest holds the two together.
const rootSuffix = "_root_test.go"

// pkgTests are the test functions of a package, by whether they need root.
type pkgTests struct {
	path string
	dir  string
	user funcs
	root funcs
}

type funcs struct{ tests, fuzz, bench []string }

// find lists the test functions of every package in the module at r.dir.
func (r *runner) find() ([]pkgTests, error) {
	cmd := r.command(r.dir, "go", "list", "-tags", "root", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", "./...")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w\n%s", err, stderrOf(err))
	}
	var all []pkgTests
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode the list of packages: %w", err)
		}
		found := pkgTests{path: p.ImportPath, dir: p.Dir}
		for _, name := range append(p.TestGoFiles, p.XTestGoFiles...) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, fmt.Errorf("parse tests: %w", err)
			}
			if strings.HasSuffix(name, rootSuffix) {
				found.root.add(f)
			} else {
				found.user.add(f)
			}
		}
		all = append(all, found)
	}
}

// add appends the test functions that f declares.
func (fs *funcs) add(f *ast.File) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil {
			continue
		}
		switch name := fn.Name.Name; {
		case name == "TestMain":
		case isTest(name, "Test"), isTest(name, "Example"):
			fs.tests = append(fs.tests, name)
		case isTest(name, "Fuzz"):
			fs.fuzz = append(fs.fuzz, name)
		case isTest(name, "Benchmark"):
			fs.bench = append(fs.bench, name)
		}
	}
}

// isTest is go test's own rule: Test, TestX and Test_x, but not Testify.
func isTest(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	c, _ := utf8.DecodeRuneInString(rest)
	return rest == "" || !unicode.IsLower(c)
}

// exactly is a pattern for go test that matches these names and no other.
func exactly(names ...string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	return "^(" + strings.Join(quoted, "|") + ")$"
}
