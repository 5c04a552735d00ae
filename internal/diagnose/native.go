package diagnose

import (
	"errors"

	"github.com/expr-lang/expr/ast"
)

// Most expressions reckon with counters alone, or are decided by what comes first
// in them. That is evaluated here: the machine of the library takes ten times as
// long for it, and still longer where a number is not known. TestNative sees to it
// that both come to the same.

// whole, truth and words evaluate parts of an expression.
type (
	whole func(*scope) (int, error)
	truth func(*scope) (bool, error)
	words func(*scope) string
)

// errMachine says that the machine is needed after all.
var errMachine = errors.New("needs the machine")

// native is e without the machine, as far as that goes.
func (e *expression) native() func(*scope) (any, error) {
	program, err := e.program()
	if err != nil {
		return nil
	}
	n := program.Node()
	if f := wordsOf(n); f != nil {
		return func(s *scope) (any, error) { return f(s), nil }
	}
	switch kindOf(n) {
	case kindInt:
		f := wholeOf(n)
		return func(s *scope) (any, error) { v, err := f(s); return valued(v, err) }
	case kindBool:
		f := truthOf(n)
		return func(s *scope) (any, error) { v, err := f(s); return valued(v, err) }
	}
	f := leave(n)
	return func(s *scope) (any, error) { return nil, f(s) }
}

// valued is a value that is known.
func valued[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// The types of parts that matter, by their names in Go.
const (
	kindInt    = "int"
	kindFloat  = "float64"
	kindString = "string"
	kindBool   = "bool"
)

func kindOf(n ast.Node) string {
	if t := n.Type(); t != nil {
		return t.Kind().String()
	}
	return ""
}

// leave leaves n to the machine, unless the call that n begins with tells that it
// is not known.
func leave(n ast.Node) func(*scope) error {
	call := leading(n)
	if call == nil {
		return func(*scope) error { return errMachine }
	}
	return func(s *scope) error {
		if err := call(s); err != nil {
			return err
		}
		return errMachine
	}
}

// leading is the call that is evaluated before anything else that can fail; nil
// where something else is.
func leading(n ast.Node) func(*scope) error {
	switch n := n.(type) {
	case *ast.BinaryNode:
		return leading(n.Left)
	case *ast.UnaryNode:
		return leading(n.Node)
	case *ast.ConditionalNode:
		return leading(n.Cond)
	case *ast.MemberNode:
		return leading(n.Node)
	case *ast.ChainNode:
		return leading(n.Node)
	case *ast.SliceNode:
		return leading(n.Node)
	case *ast.VariableDeclaratorNode:
		return leading(n.Value)
	case *ast.BuiltinNode:
		if len(n.Arguments) > 0 {
			return leading(n.Arguments[0])
		}
	case *ast.CallNode:
		if i, ok := usedLet(n); ok {
			return func(s *scope) error { _, err := s.let(i); return err }
		}
		if name, args, ok := callOf(n); ok {
			return failing(name, args)
		}
		if len(n.Arguments) > 0 {
			return leading(n.Arguments[0])
		}
	}
	return nil
}

// failing tells what goes wrong in the call of a function of scope.
func failing(name string, args []words) func(*scope) error {
	switch {
	case name == "field" && len(args) == 2:
		return func(s *scope) error { _, err := s.Field(args[0](s), args[1](s)); return err }
	case len(args) != 1:
		return nil
	}
	arg := args[0]
	switch name {
	case "counter":
		return func(s *scope) error { _, err := s.Counter(arg(s)); return err }
	case "total":
		return func(s *scope) error { _, err := s.Total(arg(s)); return err }
	case "growths":
		return func(s *scope) error { _, err := s.Growths(arg(s)); return err }
	case "sysctl":
		return func(s *scope) error { _, err := s.Sysctl(arg(s)); return err }
	case "sysctls":
		return func(s *scope) error { _, err := s.Sysctls(arg(s)); return err }
	case "fact":
		return func(s *scope) error { _, err := s.Fact(arg(s)); return err }
	case "facts":
		return func(s *scope) error { _, err := s.Facts(arg(s)); return err }
	}
	return nil
}

// callOf is the call of a function by its name, with text that cannot fail.
func callOf(n *ast.CallNode) (name string, args []words, ok bool) {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return "", nil, false
	}
	for _, a := range n.Arguments {
		f := wordsOf(a)
		if f == nil {
			return "", nil, false
		}
		args = append(args, f)
	}
	return callee.Value, args, true
}

// wordsOf is text, nil where n is more than constants and names.
func wordsOf(n ast.Node) words {
	switch n := n.(type) {
	case *ast.StringNode:
		return func(*scope) string { return n.Value }
	case *ast.IdentifierNode:
		return wordNames[n.Value]
	case *ast.BinaryNode:
		a, b := wordsOf(n.Left), wordsOf(n.Right)
		if n.Operator == "+" && a != nil && b != nil {
			return func(s *scope) string { return a(s) + b(s) }
		}
	}
	return nil
}

// wordNames are the names in scope whose values are text.
var wordNames = map[string]words{
	"device":  func(s *scope) string { return s.Device },
	"netns":   func(s *scope) string { return s.NetNS },
	"ns":      func(s *scope) string { return s.NS },
	"proto":   func(s *scope) string { return s.Proto },
	"src":     func(s *scope) string { return s.Src },
	"dst":     func(s *scope) string { return s.Dst },
	"dst_mac": func(s *scope) string { return s.DstMAC },
	"owner":   func(s *scope) string { return s.Owner },
	"kernel":  func(s *scope) string { return s.Kernel },
}

// wholeOf is a whole number.
func wholeOf(n ast.Node) whole {
	if f := knownWhole(n); f != nil {
		return f
	}
	f := leave(n)
	return func(s *scope) (int, error) { return 0, f(s) }
}

func knownWhole(n ast.Node) whole {
	if kindOf(n) != kindInt {
		return nil
	}
	switch n := n.(type) {
	case *ast.IntegerNode:
		return func(*scope) (int, error) { return n.Value, nil }
	case *ast.IdentifierNode:
		return wholeNames[n.Value]
	case *ast.CallNode:
		return wholeCall(n)
	case *ast.ConditionalNode:
		if kindOf(n.Exp1) == kindInt && kindOf(n.Exp2) == kindInt {
			return choice(truthOf(n.Cond), wholeOf(n.Exp1), wholeOf(n.Exp2))
		}
	case *ast.BinaryNode:
		return both(n.Left, n.Right, arithmetic[n.Operator])
	case *ast.BuiltinNode:
		if len(n.Arguments) == 2 {
			return both(n.Arguments[0], n.Arguments[1], extremes[n.Name])
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

// both is an operation on two whole numbers, the left one first; nil where they
// are not.
func both[T any](left, right ast.Node, op func(a, b int) T) func(*scope) (T, error) {
	if op == nil || kindOf(left) != kindInt || kindOf(right) != kindInt {
		return nil
	}
	a, b := wholeOf(left), wholeOf(right)
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

// wholeCall is the call of a function that gives a whole number.
func wholeCall(n *ast.CallNode) whole {
	if i, ok := usedLet(n); ok {
		return func(s *scope) (int, error) { return s.LetInt(i) }
	}
	name, args, ok := callOf(n)
	if !ok || len(args) != 1 {
		return nil
	}
	arg := args[0]
	switch name {
	case "counter":
		return func(s *scope) (int, error) { return s.Counter(arg(s)) }
	case "total":
		return func(s *scope) (int, error) { return s.Total(arg(s)) }
	case "sysctl":
		return func(s *scope) (int, error) { return s.Sysctl(arg(s)) }
	case "found":
		return func(s *scope) (int, error) { return s.Found(arg(s)) }
	}
	return nil
}

// truthOf is a condition.
func truthOf(n ast.Node) truth {
	if f := knownTruth(n); f != nil {
		return f
	}
	f := leave(n)
	return func(s *scope) (bool, error) { return false, f(s) }
}

func knownTruth(n ast.Node) truth {
	switch n := n.(type) {
	case *ast.BoolNode:
		return func(*scope) (bool, error) { return n.Value, nil }
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			f := truthOf(n.Node)
			return func(s *scope) (bool, error) { v, err := f(s); return !v && err == nil, err }
		}
	case *ast.CallNode:
		if i, ok := usedLet(n); ok && kindOf(n) == kindBool {
			return func(s *scope) (bool, error) { return s.LetTruth(i) }
		}
		if name, args, ok := callOf(n); ok && name == "has" && len(args) == 1 {
			return func(s *scope) (bool, error) { return s.Has(args[0](s)), nil }
		}
	case *ast.BinaryNode:
		if f := sameWords(n); f != nil {
			return f
		}
		if f := both(n.Left, n.Right, comparisons[n.Operator]); f != nil {
			return f
		}
		return connected(n)
	}
	return nil
}

// sameWords compares text.
func sameWords(n *ast.BinaryNode) truth {
	a, b := wordsOf(n.Left), wordsOf(n.Right)
	if a == nil || b == nil || n.Operator != "==" && n.Operator != "!=" {
		return nil
	}
	same := n.Operator == "=="
	return func(s *scope) (bool, error) { return (a(s) == b(s)) == same, nil }
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
	return func(s *scope) (bool, error) {
		if v, err := a(s); err != nil || v == decides {
			return v, err
		}
		return b(s)
	}
}
