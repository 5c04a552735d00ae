package diagnose

import (
	"github.com/expr-lang/expr/ast"
)

// Most expressions reckon with counters alone. Those are evaluated here: the
// machine of the library takes ten times as long for them, and still longer where
// a number is not known. TestNative sees to it that both come to the same.

// whole and truth evaluate parts of an expression.
type (
	whole func(*scope) (int, error)
	truth func(*scope) (bool, error)
)

// native is e for the machine it runs on, nil where it is more than whole numbers,
// conditions and counters.
func (e *expression) native() func(*scope) (any, error) {
	program, err := e.program()
	if err != nil {
		return nil
	}
	if f := wholeOf(program.Node()); f != nil {
		return func(s *scope) (any, error) { v, err := f(s); return known(v, err) }
	}
	if f := truthOf(program.Node()); f != nil {
		return func(s *scope) (any, error) { v, err := f(s); return known(v, err) }
	}
	return nil
}

func known(v any, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// wholeOf is a whole number, nil where n is none.
func wholeOf(n ast.Node) whole {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return func(*scope) (int, error) { return n.Value, nil }
	case *ast.IdentifierNode:
		return wholeNames[n.Value]
	case *ast.CallNode:
		return wholeCall(n)
	case *ast.ConditionalNode:
		return choice(truthOf(n.Cond), wholeOf(n.Exp1), wholeOf(n.Exp2))
	case *ast.BinaryNode:
		if op := arithmetic[n.Operator]; op != nil {
			return both(wholeOf(n.Left), wholeOf(n.Right), op)
		}
	case *ast.BuiltinNode:
		if op := extremes[n.Name]; op != nil && len(n.Arguments) == 2 {
			return both(wholeOf(n.Arguments[0]), wholeOf(n.Arguments[1]), op)
		}
	}
	return nil
}

// wholeNames are the names in scope whose values are whole numbers and often asked
// for.
var wholeNames = map[string]whole{
	"drops":     func(s *scope) (int, error) { return s.Drops, nil },
	"samples":   func(s *scope) (int, error) { return s.Samples, nil },
	"elsewhere": func(s *scope) (int, error) { return s.Elsewhere, nil },
	"delta":     func(s *scope) (int, error) { return s.Delta, nil },
	"before":    func(s *scope) (int, error) { return s.Before, nil },
	"after":     func(s *scope) (int, error) { return s.After, nil },
	"too_big":   func(s *scope) (int, error) { return s.TooBig, nil },
}

var arithmetic = map[string]func(a, b int) int{
	"+": func(a, b int) int { return a + b },
	"-": func(a, b int) int { return a - b },
	"*": func(a, b int) int { return a * b },
}

var extremes = map[string]func(a, b int) int{
	"max": func(a, b int) int { return max(a, b) },
	"min": func(a, b int) int { return min(a, b) },
}

var comparisons = map[string]func(a, b int) bool{
	"==": func(a, b int) bool { return a == b },
	"!=": func(a, b int) bool { return a != b },
	"<":  func(a, b int) bool { return a < b },
	"<=": func(a, b int) bool { return a <= b },
	">":  func(a, b int) bool { return a > b },
	">=": func(a, b int) bool { return a >= b },
}

// both is an operation on two numbers, the left one first.
func both[T any](a, b whole, op func(a, b int) T) func(*scope) (T, error) {
	if a == nil || b == nil {
		return nil
	}
	return func(s *scope) (T, error) {
		var none T
		x, err := a(s)
		if err != nil {
			return none, err
		}
		y, err := b(s)
		if err != nil {
			return none, err
		}
		return op(x, y), nil
	}
}

// choice is one of two numbers.
func choice(cond truth, yes, no whole) whole {
	if cond == nil || yes == nil || no == nil {
		return nil
	}
	return func(s *scope) (int, error) {
		ok, err := cond(s)
		if err != nil {
			return 0, err
		}
		if ok {
			return yes(s)
		}
		return no(s)
	}
}

// wholeCall is the call of a function that gives a whole number, with constant
// names.
func wholeCall(n *ast.CallNode) whole {
	name, args, ok := constantCall(n)
	switch {
	case !ok:
		return nil
	case name == "most":
		return func(s *scope) (int, error) { return s.Most(args...) }
	case len(args) != 1:
		return nil
	}
	switch name {
	case "counter":
		return func(s *scope) (int, error) { return s.Counter(args[0]) }
	case "total":
		return func(s *scope) (int, error) { return s.Total(args[0]) }
	case "sysctl":
		return func(s *scope) (int, error) { return s.Sysctl(args[0]) }
	case "found":
		return func(s *scope) (int, error) { return s.Found(args[0]) }
	}
	return nil
}

// constantCall is the call of a function by its name, with text that is constant.
func constantCall(n *ast.CallNode) (name string, args []string, ok bool) {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return "", nil, false
	}
	for _, a := range n.Arguments {
		text, constant := a.(*ast.StringNode)
		if !constant {
			return "", nil, false
		}
		args = append(args, text.Value)
	}
	return callee.Value, args, true
}

// truthOf is a condition, nil where n is none.
func truthOf(n ast.Node) truth {
	switch n := n.(type) {
	case *ast.BoolNode:
		return func(*scope) (bool, error) { return n.Value, nil }
	case *ast.UnaryNode:
		if f := truthOf(n.Node); f != nil && (n.Operator == "not" || n.Operator == "!") {
			return func(s *scope) (bool, error) { v, err := f(s); return !v && err == nil, err }
		}
	case *ast.CallNode:
		if name, args, ok := constantCall(n); ok && name == "has" && len(args) == 1 {
			return func(s *scope) (bool, error) { return s.Has(args[0]), nil }
		}
	case *ast.BinaryNode:
		if op := comparisons[n.Operator]; op != nil {
			return both(wholeOf(n.Left), wholeOf(n.Right), op)
		}
		return connected(n)
	}
	return nil
}

// connected are two conditions of which the second counts only where the first
// does not decide.
func connected(n *ast.BinaryNode) truth {
	var decides bool
	switch n.Operator {
	case "or", "||":
		decides = true
	case "and", "&&":
	default:
		return nil
	}
	a, b := truthOf(n.Left), truthOf(n.Right)
	if a == nil || b == nil {
		return nil
	}
	return func(s *scope) (bool, error) {
		if v, err := a(s); err != nil || v == decides {
			return v, err
		}
		return b(s)
	}
}
