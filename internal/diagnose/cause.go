package diagnose

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr"

	"github.com/whydrop/whydrop/record"
)

// Cause is an entry of the knowledge base, checked and compiled.
// knowledge/causes/README.md describes its form. It must not be changed.
type Cause struct {
	ID        string           `yaml:"id"`
	Title     string           `yaml:"title"`
	Class     record.Class     `yaml:"class"`
	Station   record.Station   `yaml:"station"`
	Direction record.Direction `yaml:"direction"`
	// Kind is loss, or "" for it, contributor or conclusion.
	Kind string `yaml:"kind"`
	// Verified are the kernels on which it was reproduced.
	Verified []string `yaml:"verified"`
	Per      string   `yaml:"per"`
	// Scope is host where the loss meets all traffic of the host, else "".
	Scope string `yaml:"scope"`
	// DependsOn are the causes of which this one can be only the consequence, and
	// is where DependsWhen holds; ContributesTo those whose findings a contributor
	// is attached to.
	DependsOn     []string `yaml:"depends_on"`
	DependsWhen   string   `yaml:"depends_when"`
	ContributesTo []string `yaml:"contributes_to"`

	// Lets are names that its expressions can use.
	Lets     []Let     `yaml:"let"`
	Patterns []Pattern `yaml:"drops"`
	Lost     string    `yaml:"lost"`
	// Unit is what Lost counts: packets, or events of which nobody knows how many
	// packets they were.
	Unit string `yaml:"unit"`
	// When, of counters alone, says whether the facts are worth reading, Holds
	// whether a contributor or conclusion is true, Count how many events it is of.
	When     string       `yaml:"when"`
	Holds    string       `yaml:"holds"`
	Count    string       `yaml:"count"`
	Evidence []Item       `yaml:"evidence"`
	Requests []string     `yaml:"facts"`
	Remedies []RemedyRule `yaml:"remedy"`
	Verify   []string     `yaml:"verify"`
	Next     []string     `yaml:"next"`

	// Explanation is explain.md.
	Explanation string `yaml:"-"`
	// own: somebody's own, not built in.
	own bool

	title        *template
	lost         *expression
	when         *expression
	holds, count *expression
	dependsWhen  *expression
	requests     []*template
	verify, next []*template
}

// Pattern chooses drops that can be a cause's.
type Pattern struct {
	conditions `yaml:",inline"`
	Where      string `yaml:"where"`
	Share      string `yaml:"share"`

	where, share *expression
}

// Item is a number that speaks for or against a cause.
type Item struct {
	Counter string `yaml:"counter"`
	Fact    string `yaml:"fact"`
	Name    string `yaml:"name"`
	Value   string `yaml:"value"`
	Expect  string `yaml:"expect"`
	Role    string `yaml:"role"`
	When    string `yaml:"when"`
	Says    string `yaml:"says"`

	fact, says, name    *template
	value, expect, when *expression
}

// The roles of an Item.
const (
	roleConfirms = "confirms"
	roleNeeds    = "needs"
	roleHint     = "hint"
)

// RemedyRule is a record.Remedy whose fields are templates.
type RemedyRule struct {
	When    string `yaml:"when"`
	Command string `yaml:"command"`
	Persist string `yaml:"persist"`
	Undo    string `yaml:"undo"`
	Risk    string `yaml:"risk"`
	Why     string `yaml:"why"`

	when                              *expression
	command, persist, undo, risk, why *template
}

// unitEvents is the other value of Cause.Unit than packets.
const unitEvents = "events"

// perDevice is the other value of Cause.Per than netns.
const perDevice = "device"

// shorthands of Item.Expect.
var shorthands = map[string]string{
	"equal":    "",
	"at-least": "",
	"moves":    "delta > 0",
	"flat":     "delta == 0",
}

var idShape = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// loadCauses reads causes/*/cause.yaml; a base without causes is good.
func loadCauses(fsys fs.FS, k *Knowledge, how trust) error {
	files, err := fs.Glob(fsys, "causes/*/cause.yaml")
	if err != nil {
		return fmt.Errorf("list causes: %w", err)
	}
	slices.Sort(files)
	if k.causes, err = decodeEach[Cause](fsys, files); err != nil {
		return err
	}
	for i, c := range k.causes {
		c.markOwn(fsys, files[i])
		if err := c.ready(fsys, files[i], how); err != nil {
			return err
		}
	}
	k.indexPatterns()
	k.indexKinds()
	return k.checkLinks()
}

// patternOf is a pattern by the places of its cause and of itself.
type patternOf struct{ cause, pattern int }

// indexPatterns makes patterns to be found by the reason and function of a drop.
func (k *Knowledge) indexPatterns() {
	k.patterns = map[siteOf][]patternOf{}
	for i, c := range k.causes {
		for j := range c.Patterns {
			for _, s := range c.Patterns[j].sites() {
				k.patterns[s] = append(k.patterns[s], patternOf{i, j})
			}
		}
	}
}

// patternsOf are the patterns that can hold for drops with what d says of
// their key, in the order of the causes.
func (k *Knowledge) patternsOf(d drop) []patternOf {
	var out []patternOf
	for _, s := range d.sites() {
		out = append(out, k.patterns[s]...)
	}
	slices.SortFunc(out, func(a, b patternOf) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), cmp.Compare(a.pattern, b.pattern))
	})
	return slices.Compact(out)
}

// ready checks what was decoded of a cause and adds what is not in its file.
func (c *Cause) ready(fsys fs.FS, name string, how trust) error {
	dir := path.Dir(name)
	if err := c.check(path.Base(dir)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := c.compile(how); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	text, err := fs.ReadFile(fsys, path.Join(dir, "explain.md"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read explanation of %s: %w", c.ID, err)
	}
	c.Explanation = string(text)
	return nil
}

// check looks at what needs no compiler.
func (c *Cause) check(folder string) error {
	m := meaning{Class: c.Class, Station: c.Station, Sentence: c.Title}
	switch {
	case c.ID != folder:
		return fmt.Errorf("id %q is not the folder's name", c.ID)
	case !idShape.MatchString(c.ID) || c.ID == record.CauseNotKnown:
		return fmt.Errorf("id %q is no id", c.ID)
	case c.Unit != "" && (c.Unit != unitEvents || c.Lost == "" || len(c.Patterns) > 0):
		return fmt.Errorf("unit %q: want none, or events where the loss is only counted", c.Unit)
	case c.Per != "" && c.Per != "netns" && c.Per != perDevice:
		return fmt.Errorf("per %q: want netns or device", c.Per)
	case !slices.Contains([]record.Direction{
		record.DirectionRX, record.DirectionTX, record.DirectionForward, record.DirectionUnknown,
	}, c.Direction):
		return fmt.Errorf("unknown direction %q", c.Direction)
	}
	if err := cmpErr(c.checkKind(), c.checkLetNames()); err != nil {
		return err
	}
	for i, p := range c.Patterns {
		if err := p.conditions.check(); err != nil {
			return fmt.Errorf("drops %d: %w", i+1, err)
		}
	}
	for i, it := range c.Evidence {
		if err := it.check(); err != nil {
			return fmt.Errorf("evidence %d: %w", i+1, err)
		}
	}
	return m.check()
}

func (it *Item) check() error {
	given := 0
	for _, s := range []string{it.Counter, it.Fact, it.Name} {
		if s != "" {
			given++
		}
	}
	_, short := shorthands[it.Expect]
	switch {
	case given != 1:
		return errors.New("want one of counter, fact and name")
	case it.Name != "" && it.Value == "":
		return errors.New("a name without the value that it names")
	case it.Name == "" && it.Value != "":
		return errors.New("a value without its name")
	case short && it.Counter == "":
		return fmt.Errorf("expect %s needs a counter", it.Expect)
	case it.Expect == "":
		return errors.New("nothing is expected")
	case !slices.Contains([]string{"", roleConfirms, roleNeeds, roleHint}, it.Role):
		return fmt.Errorf("unknown role %q", it.Role)
	}
	return nil
}

// trust says whether expressions are compiled when they are loaded, to see
// that they are good, or when they are needed.
type trust bool

const (
	fresh    trust = false
	accepted trust = true // a Load has checked them before
)

// compiler makes expressions and keeps the first error.
type compiler struct {
	trust
	lets []Let // that expressions can use
	err  error
}

// checked keeps what is wrong with an expression or a template.
func (c *compiler) checked(what string, check func() error) {
	if c.trust == accepted || c.err != nil {
		return
	}
	if err := check(); err != nil {
		c.err = fmt.Errorf("%s: %w", what, err)
	}
}

func (c *compiler) expression(what, text string, kind expr.Option) *expression {
	return c.about(scope{}, c.lets, what, text, kind)
}

func (c *compiler) sample(what, text string) *expression {
	return c.about(sampleScope{}, nil, what, text, expr.AsBool())
}

func (c *compiler) about(env any, lets []Let, what, text string, kind expr.Option) *expression {
	if text == "" {
		return nil
	}
	e := newExpression(text, env, lets, kind)
	c.checked(what, e.check)
	return e
}

func (c *compiler) template(what, text string) *template {
	t, err := parseTemplate(text, c.lets)
	if err != nil {
		c.err = cmpErr(c.err, fmt.Errorf("%s: %w", what, err))
		return nil
	}
	c.checked(what, t.check)
	return t
}

func (c *compiler) templates(what string, texts []string) []*template {
	var out []*template
	for _, t := range texts {
		out = append(out, c.template(what, t))
	}
	return out
}

func (c *Cause) compile(how trust) error {
	k := compiler{trust: how}
	for i := range c.Lets {
		l := &c.Lets[i]
		l.is = k.expression("let "+l.Name, l.Is, nil)
		k.lets = c.Lets[:i+1]
	}
	c.title = k.template("title", c.Title)
	c.lost = k.expression("lost", c.Lost, nil)
	c.when, c.holds = k.expression("when", c.When, expr.AsBool()), k.expression("holds", c.Holds, expr.AsBool())
	c.count = k.expression("count", c.Count, nil)
	c.dependsWhen = k.expression("depends_when", c.DependsWhen, expr.AsBool())
	c.requests = k.templates("facts", c.Requests)
	c.verify = k.templates("verify", c.Verify)
	c.next = k.templates("next", c.Next)
	for i := range c.Patterns {
		p := &c.Patterns[i]
		p.where = k.sample("where", p.Where)
		p.share = k.expression("share", p.Share, nil)
	}
	for i := range c.Evidence {
		it := &c.Evidence[i]
		it.fact, it.says, it.name = k.template("fact", it.Fact), k.template("says", it.Says), k.template("name", it.Name)
		it.when = k.expression("when", it.When, expr.AsBool())
		it.value = k.expression("value", it.Value, nil)
		text, short := shorthands[it.Expect]
		if !short {
			text = it.Expect
		}
		it.expect = k.expression("expect", text, expr.AsBool())
	}
	for i := range c.Remedies {
		r := &c.Remedies[i]
		r.when = k.expression("remedy when", r.When, expr.AsBool())
		r.command, r.persist, r.undo = k.template("command", r.Command), k.template("persist", r.Persist), k.template("undo", r.Undo)
		r.risk, r.why = k.template("risk", r.Risk), k.template("why", r.Why)
	}
	if k.err != nil || how == accepted {
		return k.err
	}
	if err := c.checkFunctions(); err != nil {
		return err
	}
	if err := cmpErr(c.checkRequests(), c.checkLets()); err != nil {
		return err
	}
	all := c.expressions()
	for _, e := range all {
		e.sampled()
		e.counters()
	}
	for _, e := range all {
		e.forget()
	}
	return nil
}

// checkRequests sees to it that every fact which an expression names by a
// constant is asked for.
func (c *Cause) checkRequests() error {
	for _, it := range c.Evidence {
		if it.Fact != "" && !slices.Contains(c.Requests, it.Fact) {
			return fmt.Errorf("evidence: the request %q is not among the facts", it.Fact)
		}
	}
	for _, e := range c.expressions() {
		for _, call := range e.calls() {
			request := call[1]
			switch call[0] {
			case "sysctl", "sysctls":
				request = "sysctl " + request
			case "fact", "field", "facts":
			default:
				continue
			}
			if !slices.Contains(c.Requests, request) {
				return fmt.Errorf("%s: the request %q is not among the facts", e.text, request)
			}
		}
	}
	return nil
}

// expressions are all of the cause's.
func (c *Cause) expressions() []*expression {
	out := []*expression{c.lost, c.when, c.holds, c.count, c.dependsWhen}
	templates := slices.Concat([]*template{c.title}, c.verify, c.next, c.requests)
	for _, l := range c.Lets {
		out = append(out, l.is)
	}
	for _, p := range c.Patterns {
		out = append(out, p.share)
	}
	for _, it := range c.Evidence {
		out = append(out, it.value, it.expect, it.when)
		templates = append(templates, it.says, it.name, it.fact)
	}
	for _, r := range c.Remedies {
		out = append(out, r.when)
		templates = append(templates, r.command, r.persist, r.undo, r.risk, r.why)
	}
	for _, t := range templates {
		for _, p := range t.parts {
			out = append(out, p.value)
		}
	}
	return slices.DeleteFunc(out, func(e *expression) bool { return e == nil })
}

// weight says how specific a pattern is.
func (p *Pattern) weight() int {
	n := p.conditions.weight()
	if p.where != nil {
		n += ofSample
	}
	return n
}

// ofSample says whether only a sample tells that the pattern holds.
func (p *Pattern) ofSample() bool {
	return p.where != nil || len(p.Stack) > 0 || p.Destination != ""
}

// Causes returns the causes in the order of their ids.
func (k *Knowledge) Causes() []*Cause { return k.causes }

// Cause returns the cause with that id, or nil.
func (k *Knowledge) Cause(id string) *Cause {
	for _, c := range k.causes {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// Without returns the knowledge as it would be without the folder of a cause.
func (k *Knowledge) Without(id string) *Knowledge {
	fewer := *k
	fewer.causes = slices.DeleteFunc(slices.Clone(k.causes), func(c *Cause) bool { return c.ID == id })
	fewer.indexPatterns()
	fewer.indexKinds()
	return &fewer
}

// kind and argument of a request.
func splitRequest(s string) (kind, arg string) {
	kind, arg, _ = strings.Cut(strings.TrimSpace(s), " ")
	return kind, strings.TrimSpace(arg)
}
