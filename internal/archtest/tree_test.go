package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// module is the path of the main module; the paths of its packages are
// written relative to it.
const module = "github.com/whydrop/whydrop"

// goFile is what the rules know about a Go file.
type goFile struct {
	path      string // from the top of the repository
	dir       string // the same without the name; "." at the top
	pkg       string
	test      bool
	generated bool
	rootTag   bool // has the build tag root
	lines     int
	doc       string              // the package comment
	imports   []string            // import paths; relative to module where they lie in it
	uses      map[string][]string // import path → names selected from it
	funcs     []function
	inits     int
	tables    []string // drop reasons that a literal ties to a number
}

// function is a function or a function literal.
type function struct {
	name  string
	line  int
	lines int
	// tableLines of them are inside of composite literals.
	tableLines int
}

// tree is what the rules know about the repository.
type tree struct {
	files []goFile
	c     map[string]string // text of the .c and .h files, by path
}

// scan reads the Go and C files of the repository in fsys. It leaves out
// testdata and hidden directories, as the go command does.
func scan(fsys fs.FS) (*tree, error) {
	t := &tree{c: map[string]string{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		switch path.Ext(name) {
		case ".go":
			src, err := fs.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			f, err := parseGo(name, src)
			if err != nil {
				return err
			}
			t.files = append(t.files, f)
		case ".c", ".h":
			src, err := fs.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			t.c[name] = string(src)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("scan the tree: %w", err)
	}
	return t, nil
}

// parseGo extracts from a Go file what the rules ask for.
func parseGo(name string, src []byte) (goFile, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return goFile{}, err
	}
	g := goFile{
		path:      name,
		dir:       path.Dir(name),
		pkg:       f.Name.Name,
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(f),
		rootTag:   hasRootTag(f),
		lines:     bytes.Count(src, []byte("\n")),
		doc:       f.Doc.Text(),
		uses:      map[string][]string{},
	}
	names := map[string]string{} // local name → import path
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return goFile{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		p = relative(p)
		g.imports = append(g.imports, p)
		local := path.Base(p)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		names[local] = p
	}
	ast.Inspect(f, func(n ast.Node) bool {
		g.inspect(fset, n, names)
		return true
	})
	return g, nil
}

// relative cuts the module's path off the path of a package in it.
func relative(importPath string) string {
	if s, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return s
	}
	return importPath
}

func (g *goFile) inspect(fset *token.FileSet, n ast.Node, imports map[string]string) {
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Name.Name == "init" && n.Recv == nil {
			g.inits++
		}
		g.addFunc(fset, n.Name.Name, n, n.Body)
	case *ast.FuncLit:
		g.addFunc(fset, "a function literal", n, n.Body)
	case *ast.SelectorExpr:
		if x, ok := n.X.(*ast.Ident); ok && imports[x.Name] != "" {
			p := imports[x.Name]
			g.uses[p] = append(g.uses[p], n.Sel.Name)
		}
	case *ast.CompositeLit:
		g.tables = append(g.tables, numberedReasons(n)...)
	}
}

// addFunc measures a function from its first to its last line.
func (g *goFile) addFunc(fset *token.FileSet, name string, n ast.Node, body *ast.BlockStmt) {
	if body == nil {
		return
	}
	line := func(p token.Pos) int { return fset.Position(p).Line }
	fn := function{name: name, line: line(n.Pos()), lines: line(n.End()) - line(n.Pos()) + 1}
	ast.Inspect(body, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if ok {
			fn.tableLines += line(lit.End()) - line(lit.Pos())
		}
		return !ok
	})
	g.funcs = append(g.funcs, fn)
}

// hasRootTag says whether the build constraint of f asks for the tag root.
func hasRootTag(f *ast.File) bool {
	for _, group := range f.Comments {
		for _, c := range group.List {
			if c.Pos() > f.Package || !constraint.IsGoBuild(c.Text) {
				continue
			}
			expr, err := constraint.Parse(c.Text)
			if err == nil && !expr.Eval(func(tag string) bool { return tag != "root" }) {
				return true
			}
		}
	}
	return false
}

// reasonNames are drop reasons that every table of them would have.
var reasonNames = map[string]bool{
	"NOT_SPECIFIED": true, "NO_SOCKET": true, "PKT_TOO_SMALL": true,
	"SOCKET_FILTER": true, "NETFILTER_DROP": true, "SOCKET_RCVBUFF": true,
	"UDP_CSUM": true, "TCP_CSUM": true, "QDISC_DROP": true, "CPU_BACKLOG": true,
}

// numberedReasons returns the drop reasons that lit ties to a number: as
// 3: "NO_SOCKET", as "NO_SOCKET": 3, or by their place in a list that begins
// as the kernel's own does.
func numberedReasons(lit *ast.CompositeLit) []string {
	var found []string
	for i, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			if name := reasonIn(e); name == "NOT_SPECIFIED" && i+1 < len(lit.Elts) && reasonIn(lit.Elts[i+1]) == "NO_SOCKET" {
				found = append(found, name)
			}
			continue
		}
		if name := reasonIn(kv.Value); name != "" && isNumber(kv.Key) {
			found = append(found, name)
		}
		if name := reasonIn(kv.Key); name != "" && isNumber(kv.Value) {
			found = append(found, name)
		}
	}
	return found
}

// reasonIn is the drop reason in a string literal, or empty.
func reasonIn(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	s = strings.TrimPrefix(s, "SKB_DROP_REASON_")
	if !reasonNames[s] {
		return ""
	}
	return s
}

func isNumber(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.INT
}
