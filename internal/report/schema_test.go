package report_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// schema is the part of JSON Schema 2020-12 that docs/schema uses.
type schema struct {
	Ref        string             `json:"$ref"`
	Defs       map[string]*schema `json:"$defs"`
	Type       any                `json:"type"`
	Const      any                `json:"const"`
	Enum       []any              `json:"enum"`
	Required   []string           `json:"required"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	Minimum    *float64           `json:"minimum"`
	Pattern    string             `json:"pattern"`
	OneOf      []*schema          `json:"oneOf"`

	ID              string `json:"$id"`
	Schema          string `json:"$schema"`
	Comment         string `json:"$comment"`
	Title           string `json:"title"`
	Description     string `json:"description"`
	Format          string `json:"format"`
	ContentEncoding string `json:"contentEncoding"`
}

// readSchema refuses words that the checker below would ignore.
func readSchema(t *testing.T, name string) *schema {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "schema", name))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var s schema
	if err := dec.Decode(&s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return &s
}

// checker holds a JSON value against a schema. It is stricter than the
// schema: a field that the schema does not describe is an error.
type checker struct {
	root *schema
	// values also checks enum and const, which invented values do not meet.
	values bool
	// seen are the properties that were in any value.
	seen   map[string]bool
	errors []string
}

func (c *checker) fail(path, format string, args ...any) {
	c.errors = append(c.errors, path+": "+fmt.Sprintf(format, args...))
}

// resolve follows a reference; the name tells where properties were seen.
func (c *checker) resolve(s *schema, name string) (*schema, string) {
	if s.Ref == "" {
		return s, name
	}
	def := strings.TrimPrefix(s.Ref, "#/$defs/")
	r, ok := c.root.Defs[def]
	if !ok {
		c.fail(name, "no definition %s", s.Ref)
		return &schema{}, def
	}
	return r, def
}

func (c *checker) check(s *schema, name, path string, v any) {
	s, name = c.resolve(s, name)
	if len(s.OneOf) > 0 {
		c.oneOf(s, path, v)
		return
	}
	if s.Type == nil && s.Const == nil {
		c.fail(path, "the schema gives no type")
		return
	}
	if c.values {
		if s.Const != nil && s.Const != v || len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			c.fail(path, "%v is none of %v %v", v, s.Const, s.Enum)
		}
	}
	if s.Type != nil && !hasType(s.Type, v) {
		c.fail(path, "%T is not of type %v", v, s.Type)
	}
	switch v := v.(type) {
	case float64:
		if s.Minimum != nil && v < *s.Minimum {
			c.fail(path, "%v is below %v", v, *s.Minimum)
		}
	case string:
		if s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
			c.fail(path, "%q does not match %s", v, s.Pattern)
		}
	case map[string]any:
		c.object(s, name, path, v)
	case []any:
		if s.Items == nil {
			c.fail(path, "the schema does not describe the items")
			return
		}
		for i, item := range v {
			c.check(s.Items, name+"[]", fmt.Sprintf("%s[%d]", path, i), item)
		}
	}
}

func (c *checker) object(s *schema, name, path string, v map[string]any) {
	for _, r := range s.Required {
		if _, ok := v[r]; !ok {
			c.fail(path, "required %s is missing", r)
		}
		if _, ok := s.Properties[r]; !ok {
			c.fail(path, "required %s is not described", r)
		}
	}
	for field, value := range v {
		p, ok := s.Properties[field]
		if !ok {
			c.fail(path, "%s is not in the schema", field)
			continue
		}
		c.seen[name+"."+field] = true
		c.check(p, name+"."+field, path+"."+field, value)
	}
}

// oneOf picks the branch by the constant of its field type.
func (c *checker) oneOf(s *schema, path string, v any) {
	o, _ := v.(map[string]any)
	for _, branch := range s.OneOf {
		b, name := c.resolve(branch, "")
		if b.Properties["type"].Const == o["type"] {
			c.check(b, name, path, v)
			return
		}
	}
	c.fail(path, "type %v is not in the schema", o["type"])
}

func hasType(want, v any) bool {
	if list, ok := want.([]any); ok {
		return slices.ContainsFunc(list, func(w any) bool { return hasType(w, v) })
	}
	switch v := v.(type) {
	case nil:
		return want == "null"
	case bool:
		return want == "boolean"
	case string:
		return want == "string"
	case float64:
		return want == "number" || want == "integer" && v == math.Trunc(v)
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	}
	return false
}

func (c *checker) checkJSON(t *testing.T, b []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	c.check(c.root, "", "$", v)
}

func (c *checker) report(t *testing.T) {
	t.Helper()
	for _, e := range c.errors {
		t.Error(e)
	}
}

// unseen lists the properties that no value had.
func (c *checker) unseen() []string {
	var out []string
	defs := maps.Clone(c.root.Defs)
	if defs == nil {
		defs = map[string]*schema{}
	}
	defs[""] = c.root
	for name, d := range defs {
		for p := range d.Properties {
			if !c.seen[name+"."+p] {
				out = append(out, name+"."+p)
			}
		}
	}
	slices.Sort(out)
	return out
}

func newChecker(root *schema, values bool) *checker {
	return &checker{root: root, values: values, seen: map[string]bool{}}
}

// fill gives every field below v a value that is not zero, so that omitempty
// leaves nothing out. depth bounds types that contain themselves.
func fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1, 0).UTC()))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("10.0.0.1:53")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Slice:
		if v.Type().Elem() == reflect.TypeFor[record.Finding]() {
			depth-- // a finding has findings
		}
		if depth >= 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), depth)
		}
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth-1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth)
		}
	default:
		panic("fill: no value for " + v.Type().String())
	}
}

func filled[T any]() T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), 2)
	return v
}

func jsonOf(t *testing.T, print func(*bytes.Buffer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := print(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDiagnosisSchema fails when a field comes or goes in Go or in the schema
// alone.
func TestDiagnosisSchema(t *testing.T) {
	root := readSchema(t, "diagnosis.schema.json")
	c := newChecker(root, false)
	c.checkJSON(t, jsonOf(t, func(b *bytes.Buffer) error { return report.JSON(b, filled[record.Diagnosis]()) }))
	c.report(t)
	if u := c.unseen(); len(u) > 0 {
		t.Errorf("in the schema, not in Go: %v", u)
	}
	if root.Properties["schema_version"].Const != float64(record.SchemaVersion) {
		t.Errorf("schema_version is %v in the schema, %d in Go", root.Properties["schema_version"].Const, record.SchemaVersion)
	}
	checkEnums(t, root)

	k, err := diagnose.LoadAccepted(knowledge.FS)
	if err != nil {
		t.Fatal(err)
	}
	iv, _ := interval()
	real := newChecker(root, true)
	for _, o := range []*record.Observation{
		{},
		{
			Window: iv.Window, Counts: iv.Counts, Samples: iv.Samples,
			Sources:  []record.Source{{Name: "a", State: record.SourceDegraded, Why: "b"}},
			Counters: []record.Counter{{Name: "x", Before: 1, After: 2, Delta: 1}},
			Blind:    []record.Blind{{What: "a", Why: "b"}},
		},
	} {
		d := diagnose.Run(o, k, diagnose.Options{All: true})
		real.checkJSON(t, jsonOf(t, func(b *bytes.Buffer) error { return report.JSON(b, d) }))
	}
	real.report(t)
}

func TestComparisonSchema(t *testing.T) {
	root := readSchema(t, "comparison.schema.json")
	c := newChecker(root, false)
	c.checkJSON(t, jsonOf(t, func(b *bytes.Buffer) error { return report.JSON(b, filled[record.Comparison]()) }))
	c.report(t)
	if u := c.unseen(); len(u) > 0 {
		t.Errorf("in the schema, not in Go: %v", u)
	}
	checkEnums(t, root)

	k, err := diagnose.LoadAccepted(knowledge.FS)
	if err != nil {
		t.Fatal(err)
	}
	iv, _ := interval()
	before := &record.Observation{Window: iv.Window, Counts: iv.Counts, Samples: iv.Samples}
	real := newChecker(root, true)
	for _, after := range []*record.Observation{before, {Window: iv.Window}} {
		changed := diagnose.Compare(before, after, k)
		real.checkJSON(t, jsonOf(t, func(b *bytes.Buffer) error { return report.JSON(b, changed) }))
		if len(changed.Changes) == 0 {
			t.Error("nothing was compared")
		}
	}
	real.report(t)
}

// checkEnums holds the lists of words in the schema against those in Go.
func checkEnums(t *testing.T, root *schema) {
	t.Helper()
	words := func(s *schema) []string {
		var out []string
		for _, e := range s.Enum {
			out = append(out, fmt.Sprint(e))
		}
		return out
	}
	var stations []string
	for _, s := range record.Stations() {
		stations = append(stations, string(s))
	}
	if got := words(root.Defs["station"]); !slices.Equal(got, stations) {
		t.Errorf("stations in the schema: %v; in Go: %v", got, stations)
	}
}

func TestWatchSchema(t *testing.T) {
	root := readSchema(t, "watch.schema.json")
	lines := func(iv record.Interval, classes []record.Class, d record.Drop, class record.Class, total report.Total) []byte {
		return jsonOf(t, func(b *bytes.Buffer) error {
			if err := report.IntervalJSON(b, iv, classes, report.Style{All: true}); err != nil {
				return err
			}
			if err := report.DropJSON(b, d, class); err != nil {
				return err
			}
			return report.SummaryJSON(b, total)
		})
	}
	invented := newChecker(root, false)
	for line := range bytes.Lines(lines(filled[record.Interval](), []record.Class{"x"}, filled[record.Drop](), "x", filled[report.Total]())) {
		invented.checkJSON(t, line)
	}
	invented.report(t)
	if u := invented.unseen(); len(u) > 0 {
		t.Errorf("in the schema, not in Go: %v", u)
	}

	real := newChecker(root, true)
	iv, classes := interval()
	for i := range iv.Samples {
		iv.Samples[i].Direction = record.DirectionRX
	}
	for i := range iv.Counts {
		iv.Counts[i].Direction = record.DirectionUnknown
	}
	drop := each()[3]
	total := report.Total{Sources: quiet().Sources, Blind: quiet().Blind}
	n := 0
	for line := range bytes.Lines(lines(iv, classes, drop, record.ClassPolicy, total)) {
		real.checkJSON(t, line)
		n++
	}
	if n != 3 {
		t.Errorf("%d lines, want one of each type", n)
	}
	for line := range bytes.Lines(lines(record.Interval{}, nil, record.Drop{Key: record.Key{Direction: record.DirectionTX}}, "", report.Total{})) {
		real.checkJSON(t, line)
	}
	real.report(t)
}

// The checker itself must find what it is there for.
func TestCheckerFinds(t *testing.T) {
	root := &schema{
		Type: "object", Required: []string{"a"},
		Properties: map[string]*schema{
			"a": {Type: "integer", Minimum: new(float64)},
			"f": {Type: "string", Pattern: "^0x[0-9a-f]+$"},
			"b": {Type: "array", Items: &schema{Type: "string", Enum: []any{"x"}}},
			"c": {Ref: "#/$defs/c"},
		},
		Defs: map[string]*schema{"c": {Type: []any{"object", "null"}}},
	}
	for value, want := range map[string]string{
		`{"a":1,"b":["x"],"c":null}`: "",
		`{"a":1,"c":{}}`:             "",
		`{}`:                         "required a is missing",
		`{"a":1.5}`:                  "is not of type integer",
		`{"a":-1}`:                   "is below 0",
		`{"a":1,"b":null}`:           "is not of type array",
		`{"a":1,"b":["y"]}`:          "is none of",
		`{"a":1,"b":[1]}`:            "is not of type string",
		`{"a":1,"d":1}`:              "d is not in the schema",
		`{"a":1,"c":{"e":1}}`:        "e is not in the schema",
		`{"a":1,"f":"0x1f"}`:         "",
		`{"a":1,"f":"31"}`:           "does not match",
		`[]`:                         "is not of type object",
	} {
		c := newChecker(root, true)
		c.checkJSON(t, []byte(value))
		got := strings.Join(c.errors, "; ")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}
