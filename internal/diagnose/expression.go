package diagnose

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// scope is what an expression about a finding can name. It is the type that
// expressions are checked against when the knowledge is loaded;
// knowledge/causes/README.md explains each name.
type scope struct {
	dropped uint64 // as Drops, and not clamped

	Drops   int     `expr:"drops"`
	Bytes   int     `expr:"bytes"`
	Samples int     `expr:"samples"`
	Seconds float64 `expr:"seconds"`
	Rate    float64 `expr:"rate"`
	// Elsewhere are the drops that a pattern of the cause holds for and that it
	// was not given; 0 until all are given.
	Elsewhere int `expr:"elsewhere"`

	Device  string `expr:"device"`
	IfIndex int    `expr:"ifindex"`
	NetNS   string `expr:"netns"`
	NS      string `expr:"ns"`

	Proto          string `expr:"proto"`
	Src            string `expr:"src"`
	Dst            string `expr:"dst"`
	SrcPort        int    `expr:"sport"`
	DstPort        int    `expr:"dport"`
	DstMAC         string `expr:"dst_mac"`
	Ports          int    `expr:"ports"`
	TopPortSamples int    `expr:"top_port_samples"`
	Flows          int    `expr:"flows"`
	// Span is the time between the first and the last sample, in seconds.
	Span     float64 `expr:"span"`
	Length   int     `expr:"length"`
	TrueSize int     `expr:"truesize"`
	Inode    int     `expr:"inode"`
	Owner    string  `expr:"owner"`
	// TooBig is how many of the samples say that a packet was too big.
	TooBig int    `expr:"too_big"`
	Kernel string `expr:"kernel"`
	// Watched says that drops were looked for.
	Watched bool `expr:"watched"`

	// The item of evidence that is being looked at.
	Delta  int `expr:"delta"`
	Before int `expr:"before"`
	After  int `expr:"after"`
	Value  any `expr:"value"`

	Counter func(string) (int, error)              `expr:"counter"`
	Total   func(string) (int, error)              `expr:"total"`
	Most    func(...string) (int, error)           `expr:"most"`
	Growths func(string) ([]int, error)            `expr:"growths"`
	Sysctl  func(string) (int, error)              `expr:"sysctl"`
	Sysctls func(string) ([]int, error)            `expr:"sysctls"`
	Fact    func(string) (any, error)              `expr:"fact"`
	Field   func(string, string) (any, error)      `expr:"field"`
	Facts   func(string) ([]map[string]any, error) `expr:"facts"`
	Near    func(any, any) (bool, error)           `expr:"near"`
	Matches func(any) (bool, error)                `expr:"matches_drops"`
	Has     func(string) bool                      `expr:"has"`
	Known   func(bool, any) (any, error)           `expr:"known"`

	// Of the names that a cause gives, see define.
	LetInt   func(int) (int, error)     `expr:"let:int"`
	LetFloat func(int) (float64, error) `expr:"let:float"`
	LetText  func(int) (string, error)  `expr:"let:text"`
	LetTruth func(int) (bool, error)    `expr:"let:truth"`
	LetAny   func(int) (any, error)     `expr:"let:any"`

	lets   []Let
	values []letValue

	// Of the findings, and only when these are there.
	Found    func(string) (int, error) `expr:"found"`
	LostHere func(string) (int, error) `expr:"lost"`
}

// sampleScope is what an expression about one sampled packet can name.
type sampleScope struct {
	Proto     string `expr:"proto"`
	Src       string `expr:"src"`
	Dst       string `expr:"dst"`
	SrcPort   int    `expr:"sport"`
	DstPort   int    `expr:"dport"`
	SYN       bool   `expr:"syn"`
	ACK       bool   `expr:"ack"`
	RST       bool   `expr:"rst"`
	FIN       bool   `expr:"fin"`
	TTL       int    `expr:"ttl"`
	Length    int    `expr:"length"`
	Fragment  bool   `expr:"fragment"`
	Multicast bool   `expr:"multicast"`
	SrcRoute  bool   `expr:"source_route"`
	ICMPType  int    `expr:"icmp_type"`
	ICMPCode  int    `expr:"icmp_code"`
	VLAN      int    `expr:"vlan"`
	EtherType int    `expr:"ethertype"`
	Device    string `expr:"device"`
	GSO       int    `expr:"gso"`
	Tunnel    string `expr:"tunnel"`
}

// unknownError says that an expression needs what the record does not have.
type unknownError struct {
	format string
	args   []any
}

func (e *unknownError) Error() string { return fmt.Sprintf(e.format, e.args...) }

func unknownf(format string, args ...any) error {
	return &unknownError{format, args}
}

// memoryBudget bounds what one expression may allocate, in the units of the
// library (about one an element): knowledge of a user may be wrong.
const memoryBudget = 100_000

// expression is an expression with its text. It is compiled when that is first
// needed: of all that the knowledge base has, a diagnosis needs few.
type expression struct {
	text    string
	lets    []Let // that it can use
	program func() (*vm.Program, error)
	// compile makes what program keeps.
	compile func() (*vm.Program, error)
	// sampled says whether it names what only many samples tell, counters are
	// those that it names by a constant.
	sampled  func() bool
	counters func() []string
	// quick evaluates what needs no machine.
	quick func() func(*scope) (any, error)
}

// machines run programs, each one at a time.
var machines = sync.Pool{New: func() any { return &vm.VM{MemoryBudget: memoryBudget} }}

// newExpression makes an expression that names what env has, and lets; kind is
// expr.AsBool or expr.AsInt64 or nil for any type.
func newExpression(text string, env any, lets []Let, kind expr.Option) *expression {
	e := &expression{text: text, lets: lets, compile: func() (*vm.Program, error) {
		options := []expr.Option{expr.Env(env), expr.MaxNodes(1000)}
		if kind != nil {
			options = append(options, kind)
		}
		names := &letPatcher{lets: lets}
		if len(lets) > 0 {
			options = append(options, expr.Patch(names))
		}
		p, err := expr.Compile(text, options...)
		err = cmpErr(err, names.err)
		if err != nil {
			return nil, fmt.Errorf("expression %q: %w", text, oneLine(err))
		}
		return p, nil
	}}
	e.program = sync.OnceValues(e.compile)
	e.sampled = sync.OnceValue(e.namesSamples)
	e.counters = sync.OnceValue(e.namesCounters)
	e.quick = sync.OnceValue(e.native)
	return e
}

// forget drops what checking e left behind, which is large: of all expressions
// few are needed again. Nothing else may use e meanwhile.
func (e *expression) forget() {
	e.program = sync.OnceValues(e.compile)
}

// aboutSamples are the names of what is reckoned from all samples: without any
// they would be 0, which is not the truth.
var aboutSamples = []string{"ports", "top_port_samples", "flows", "span"}

// ofSamples says whether e names one of them; nil names nothing.
func (e *expression) ofSamples() bool { return e != nil && e.sampled() }

func (e *expression) namesSamples() bool {
	return slices.ContainsFunc(e.names(), func(n string) bool { return slices.Contains(aboutSamples, n) })
}

// visit walks e and all that the names in it stand for.
func (e *expression) visit(c ast.Visitor) {
	program, err := e.program()
	if err != nil {
		return
	}
	node := program.Node()
	ast.Walk(&node, c)
	for _, i := range e.uses() {
		e.lets[i].is.visit(c)
	}
}

// uses are the places of the lets that e itself names.
func (e *expression) uses() []int {
	program, err := e.program()
	if err != nil || len(e.lets) == 0 {
		return nil
	}
	c := new(useVisitor)
	node := program.Node()
	ast.Walk(&node, c)
	return c.found
}

type useVisitor struct{ found []int }

// Visit is called for each node of an expression.
func (c *useVisitor) Visit(node *ast.Node) {
	if i, ok := usedLet(*node); ok && !slices.Contains(c.found, i) {
		c.found = append(c.found, i)
	}
}

// names are the identifiers in e.
func (e *expression) names() []string {
	c := new(nameVisitor)
	e.visit(c)
	return c.found
}

type nameVisitor struct{ found []string }

// Visit is called for each node of an expression.
func (c *nameVisitor) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.IdentifierNode); ok {
		c.found = append(c.found, n.Value)
	}
}

// check compiles e, if nobody has yet.
func (e *expression) check() error {
	_, err := e.program()
	return err
}

// oneLine keeps the first line of the library's errors: the others draw an
// arrow.
func oneLine(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(first)
}

// run evaluates e. What cannot be evaluated is not known.
func (e *expression) run(env any) (any, error) {
	program, err := e.program()
	if err != nil {
		return nil, unknownf("%v", err)
	}
	if s, ok := env.(*scope); ok {
		if v, err := e.quick()(s); !errors.Is(err, errMachine) {
			return v, err
		}
	}
	return e.onMachine(program, env)
}

// onMachine evaluates e by the library.
func (e *expression) onMachine(program *vm.Program, env any) (any, error) {
	m := machines.Get().(*vm.VM)
	v, err := m.Run(program, env)
	machines.Put(m)
	if err == nil {
		return v, nil
	}
	var u *unknownError
	if errors.As(err, &u) {
		return nil, u
	}
	return nil, unknownf("%s: %v", e.text, oneLine(err))
}

// truth evaluates a condition.
func (e *expression) truth(env any) (bool, error) {
	v, err := e.run(env)
	b, _ := v.(bool)
	return b, err
}

// number evaluates to a count of packets; what is negative is 0.
func (e *expression) number(env any) (uint64, error) {
	v, err := e.run(env)
	if err != nil {
		return 0, err
	}
	f, ok := toFloat(v)
	if !ok || math.IsNaN(f) {
		return 0, unknownf("%s is no number", e.text)
	}
	return uint64(min(max(f, 0), math.MaxInt64/2)), nil
}

func toFloat(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// calls are the calls of functions with a constant first argument in e, as
// function and argument.
func (e *expression) calls() [][2]string {
	c := new(callVisitor)
	e.visit(c)
	return c.found
}

type callVisitor struct{ found [][2]string }

// Visit is called for each node of an expression.
func (c *callVisitor) Visit(node *ast.Node) {
	call, ok := (*node).(*ast.CallNode)
	if !ok || len(call.Arguments) == 0 {
		return
	}
	name, ok := call.Callee.(*ast.IdentifierNode)
	if ok && name.Value == "most" {
		for _, arg := range call.Arguments {
			if text, ok := arg.(*ast.StringNode); ok {
				c.found = append(c.found, [2]string{"counter", text.Value})
			}
		}
		return
	}
	arg, constant := call.Arguments[0].(*ast.StringNode)
	if ok && constant {
		c.found = append(c.found, [2]string{name.Value, arg.Value})
	}
}

// template is text with ${expression} in it.
type template struct {
	text  string
	parts []part
}

// part is literal text, or an expression.
type part struct {
	literal string
	value   *expression
}

func parseTemplate(text string, lets []Let) (*template, error) {
	t := &template{text: text}
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "${")
		if before != "" {
			t.parts = append(t.parts, part{literal: before})
		}
		if !found {
			break
		}
		code, tail, closed := cutBrace(after)
		if !closed {
			return nil, fmt.Errorf("template %q: ${ without }", text)
		}
		t.parts = append(t.parts, part{value: newExpression(code, scope{}, lets, nil)})
		rest = tail
	}
	return t, nil
}

// check compiles the expressions.
func (t *template) check() error {
	for _, p := range t.parts {
		if p.value == nil {
			continue
		}
		if err := p.value.check(); err != nil {
			return fmt.Errorf("template %q: %w", t.text, err)
		}
	}
	return nil
}

// cutBrace splits s at the brace that closes the expression it begins with.
func cutBrace(s string) (code, rest string, found bool) {
	depth, quote := 1, rune(0)
	for i, r := range s {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'' || r == '`':
			quote = r
		case r == '{':
			depth++
		case r == '}':
			if depth--; depth == 0 {
				return s[:i], s[i+1:], true
			}
		}
	}
	return "", "", false
}

// expand fills in the expressions. The error is that of the first one that is
// not known; the text has a question mark in its place.
func (t *template) expand(env any) (string, error) {
	return t.fill(env, func(_ string, v any) string { return format(v) })
}

// say is expand for a sentence: a device that nothing names is one all the same.
func (t *template) say(env any) (string, error) {
	return t.fill(env, func(code string, v any) string {
		if code == "device" && v == "" {
			return "a device"
		}
		return format(v)
	})
}

func (t *template) fill(env any, words func(code string, v any) string) (string, error) {
	var b strings.Builder
	var first error
	for _, p := range t.parts {
		if p.value == nil {
			b.WriteString(p.literal)
			continue
		}
		v, err := p.value.run(env)
		if err == nil && v == nil {
			err = unknownf("%s has no value", p.value.text)
		}
		if err != nil {
			first = cmpErr(first, err)
			b.WriteByte('?')
			continue
		}
		b.WriteString(words(p.value.text, v))
	}
	return b.String(), first
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// format prints a value as a command would take it.
func format(v any) string {
	if f, ok := v.(float64); ok {
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return strconv.FormatFloat(f, 'f', 0, 64)
		}
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
	return fmt.Sprint(v)
}

// near says whether two counts that were not read at the same instant may be
// the same: within 3, or 2 %.
func near(a, b float64) bool {
	d := math.Abs(a - b)
	return d <= 3 || d <= 0.02*max(math.Abs(a), math.Abs(b))
}
