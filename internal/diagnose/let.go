package diagnose

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
)

// Let gives a name to an expression, which all others of the cause can use: those
// of lets only the names before their own.
type Let struct {
	Name string `yaml:"name"`
	Is   string `yaml:"is"`

	is *expression
}

// A use of a name is compiled to a call of one of these functions of scope, by the
// type of the expression that it stands for. Nobody can write such a call.
const (
	letPrefix = "let:"
	letInt    = letPrefix + "int"
	letFloat  = letPrefix + "float"
	letText   = letPrefix + "text"
	letTruth  = letPrefix + "truth"
	letAny    = letPrefix + "any"
)

// function is the one of them that gives what l stands for.
func (l *Let) function() string {
	program, err := l.is.program()
	if err != nil {
		return letAny
	}
	switch kindOf(program.Node()) {
	case kindInt:
		return letInt
	case kindFloat:
		return letFloat
	case kindString:
		return letText
	case kindBool:
		return letTruth
	}
	return letAny
}

// letPatcher puts calls in place of names.
type letPatcher struct {
	lets []Let
	err  error
}

// Visit is called for each node of an expression.
func (p *letPatcher) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if i := p.index(n.Value); i >= 0 {
			callee := &ast.IdentifierNode{Value: p.lets[i].function()}
			ast.Patch(node, &ast.CallNode{Callee: callee, Arguments: []ast.Node{&ast.IntegerNode{Value: i}}})
		}
	case *ast.VariableDeclaratorNode:
		if p.index(n.Name) >= 0 {
			p.err = fmt.Errorf("the variable %s has the name of a let", n.Name)
		}
	}
}

func (p *letPatcher) index(name string) int {
	return slices.IndexFunc(p.lets, func(l Let) bool { return l.Name == name })
}

// usedLet is the place of the let that a node calls for.
func usedLet(n ast.Node) (int, bool) {
	call, ok := n.(*ast.CallNode)
	if !ok || len(call.Arguments) != 1 {
		return 0, false
	}
	callee, ok := call.Callee.(*ast.IdentifierNode)
	if !ok || len(callee.Value) < len(letPrefix) || callee.Value[:len(letPrefix)] != letPrefix {
		return 0, false
	}
	i, ok := call.Arguments[0].(*ast.IntegerNode)
	if !ok {
		return 0, false
	}
	return i.Value, true
}

// letValue is what a let came to.
type letValue struct {
	known bool
	value any
	err   error
}

// define makes the names of a cause known in s. Each is evaluated when it is first
// asked for, and once.
func (s *scope) define(lets []Let) {
	s.lets, s.values = lets, nil
	if len(lets) == 0 {
		return
	}
	s.LetInt = func(i int) (int, error) { return letOf[int](s, i) }
	s.LetFloat = func(i int) (float64, error) { return letOf[float64](s, i) }
	s.LetText = func(i int) (string, error) { return letOf[string](s, i) }
	s.LetTruth = func(i int) (bool, error) { return letOf[bool](s, i) }
	s.LetAny = s.let
}

func (s *scope) let(i int) (any, error) {
	if s.values == nil {
		s.values = make([]letValue, len(s.lets))
	}
	if v := &s.values[i]; !v.known {
		v.value, v.err = s.lets[i].is.run(s)
		v.known = true
	}
	return s.values[i].value, s.values[i].err
}

func letOf[T any](s *scope, i int) (T, error) {
	v, err := s.let(i)
	x, ok := v.(T)
	if err == nil && !ok {
		err = unknownf("%s has no value", s.lets[i].Name)
	}
	return x, err
}

var letShape = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// ofItem are the names that mean something in an item of evidence alone.
var ofItem = []string{"delta", "before", "after", "value"}

// checkLetNames holds the names to what they must be.
func (c *Cause) checkLetNames() error {
	for i, l := range c.Lets {
		switch {
		case l.Is == "":
			return fmt.Errorf("let %s: it stands for nothing", l.Name)
		case !letShape.MatchString(l.Name):
			return fmt.Errorf("let %q is no name", l.Name)
		case slices.Contains(builtin.Names, l.Name) || scopeHas(l.Name):
			return fmt.Errorf("let %s: the name means something else", l.Name)
		case slices.ContainsFunc(c.Lets[:i], func(o Let) bool { return o.Name == l.Name }):
			return fmt.Errorf("let %s is there twice", l.Name)
		}
	}
	return nil
}

// checkLets sees to it that each name is used, and means the same wherever it is.
func (c *Cause) checkLets() error {
	used := map[int]bool{}
	for _, e := range c.expressions() {
		for _, i := range e.uses() {
			used[i] = true
		}
	}
	for i, l := range c.Lets {
		if !used[i] {
			return fmt.Errorf("let %s is not used", l.Name)
		}
		for _, name := range l.is.names() {
			if slices.Contains(ofItem, name) {
				return fmt.Errorf("let %s: %s is of an item of evidence alone", l.Name, name)
			}
		}
	}
	return nil
}

func scopeHas(name string) bool { return newExpression(name, scope{}, nil, nil).check() == nil }
