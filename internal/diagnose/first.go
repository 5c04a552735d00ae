package diagnose

import (
	"github.com/expr-lang/expr/ast"
)

// firstCall is the call that an expression begins with, where it does: what asks
// for a number that was not read is known to be unknown by that alone. All that
// comes before it cannot fail.
func (e *expression) firstCall() func(*scope) error {
	program, err := e.program()
	if err != nil {
		return nil
	}
	call := leading(program.Node())
	if call == nil {
		return nil
	}
	name, args, _ := constantCall(call)
	return callOf(name, args)
}

// leading is the call, with constant arguments, that is evaluated before anything
// else that can fail; nil where something else is.
func leading(n ast.Node) *ast.CallNode {
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
		return leadingCall(n)
	}
	return nil
}

func leadingCall(n *ast.CallNode) *ast.CallNode {
	if _, _, ok := constantCall(n); ok {
		return n
	}
	if _, ok := n.Callee.(*ast.IdentifierNode); ok && len(n.Arguments) > 0 {
		if _, constant := n.Arguments[0].(*ast.StringNode); !constant {
			return leading(n.Arguments[0])
		}
	}
	return nil
}

// callOf calls a function of scope with text, and tells only what goes wrong.
func callOf(name string, args []string) func(*scope) error {
	if name == "most" {
		return func(s *scope) error { _, err := s.Most(args...); return err }
	}
	if name == "field" && len(args) == 2 {
		return func(s *scope) error { _, err := s.Field(args[0], args[1]); return err }
	}
	if len(args) != 1 {
		return nil
	}
	arg := args[0]
	switch name {
	case "counter":
		return func(s *scope) error { _, err := s.Counter(arg); return err }
	case "total":
		return func(s *scope) error { _, err := s.Total(arg); return err }
	case "growths":
		return func(s *scope) error { _, err := s.Growths(arg); return err }
	case "sysctl":
		return func(s *scope) error { _, err := s.Sysctl(arg); return err }
	case "sysctls":
		return func(s *scope) error { _, err := s.Sysctls(arg); return err }
	case "fact":
		return func(s *scope) error { _, err := s.Fact(arg); return err }
	case "facts":
		return func(s *scope) error { _, err := s.Facts(arg); return err }
	case "found":
		return func(s *scope) error { _, err := s.Found(arg); return err }
	}
	return nil
}
