//go:build root

package counter

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/testkit"
)

// field is a value that a program printed, and the way to it: tins.0.drops.
// A key that comes twice in an object has #2 behind it.
type field struct {
	path, text string
	number     bool
}

// shown is one object of the list that a program printed.
type shown []field

func (s shown) text(path string) string {
	for _, f := range s {
		if f.path == path {
			return f.text
		}
	}
	return ""
}

// readShown reads a list of objects in JSON. encoding/json alone would lose
// all but the last of equal keys, which fq has.
func readShown(t *testing.T, text []byte) []shown {
	t.Helper()
	lists := readLists(t, text)
	if len(lists) == 0 {
		return nil
	}
	return lists[0]
}

// readLists reads the lists of a batch, one after the other.
func readLists(t *testing.T, text []byte) (lists [][]shown) {
	t.Helper()
	text = mended(text)
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	for {
		if tok, err := dec.Token(); err == io.EOF {
			return lists
		} else if err != nil || tok != json.Delim('[') {
			t.Fatalf("no list but %v, %v:\n%s", tok, err, text)
		}
		var list []shown
		for dec.More() {
			var s shown
			readValue(t, dec, text, "", &s)
			list = append(list, s)
		}
		if _, err := dec.Token(); err != nil {
			t.Fatalf("a list without an end: %v:\n%s", err, text)
		}
		lists = append(lists, list)
	}
}

// mends make JSON of what tc 6.1 writes in another way in between: the options
// of some qdiscs, the handle of fw, the actions simple and skbmod.
var mends = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`"options":\{[^"{}]*\}`), `"options":{}`},
	{regexp.MustCompile(`\{handle (0x[0-9a-f]+)\s*"`), `{"handle":"$1","`},
	{regexp.MustCompile(`(\d)Simple <[^>]*>`), `$1,"kind":"simple"`},
	{regexp.MustCompile(`(\d)skbmod `), `$1,"kind":"skbmod"`},
	{regexp.MustCompile(`\}set dmac \S+ `), `}`},
	{regexp.MustCompile(`\s+index (\d+) ref \d+ bind \d+`), `,"index":$1`},
}

func mended(text []byte) []byte {
	for _, m := range mends {
		text = m.from.ReplaceAll(text, []byte(m.to))
	}
	return text
}

func readValue(t *testing.T, dec *json.Decoder, text []byte, path string, s *shown) {
	t.Helper()
	token := func() json.Token {
		tok, err := dec.Token()
		if err != nil {
			at := int(dec.InputOffset())
			t.Fatalf("%s: %v in %s", path, err, text[max(0, at-300):min(len(text), at+300)])
		}
		return tok
	}
	under := func(key string) string { return strings.TrimPrefix(path+"."+key, ".") }
	switch v := token().(type) {
	case json.Delim:
		times := map[string]int{}
		for i := 0; dec.More(); i++ {
			key := strconv.Itoa(i)
			if v == '{' {
				key = token().(string)
				if times[key]++; times[key] > 1 {
					key += "#" + strconv.Itoa(times[key])
				}
			}
			readValue(t, dec, text, under(key), s)
		}
		token()
	case json.Number:
		*s = append(*s, field{path, v.String(), true})
	case string:
		*s = append(*s, field{path, v, false})
	case bool:
		*s = append(*s, field{path, strconv.FormatBool(v), false})
	}
}

// ident is what a value is known by.
type ident struct {
	device       uint32
	name, object string
}

// matcher compares what a program printed with what was read just before and
// just after.
type matcher struct {
	t             *testing.T
	before, after map[ident]uint64
	// used are the values that something was compared with, above0 those of
	// them that were not 0.
	used, above0 map[ident]bool
}

// devicesNow reads the devices of the thread's namespace, and nothing else.
func devicesNow(t *testing.T) Snapshot {
	t.Helper()
	var s Snapshot
	s.readDevices()
	if len(s.Missing) > 0 {
		t.Fatalf("missing: %+v", s.Missing)
	}
	return s
}

// around reads, runs the program, and reads again.
func around(t *testing.T, run func() []byte) (*matcher, []byte) {
	t.Helper()
	index := func(s Snapshot) map[ident]uint64 {
		m := map[ident]uint64{}
		for _, v := range s.Values {
			id := ident{v.Device.Index, v.Name, v.Object}
			if _, ok := m[id]; ok {
				t.Errorf("%+v twice", id)
			}
			m[id] = v.Value
		}
		return m
	}
	before := devicesNow(t)
	out := run()
	after := devicesNow(t)
	return &matcher{t: t, before: index(before), after: index(after), used: map[ident]bool{}, above0: map[ident]bool{}}, out
}

// signed is a value, or the negative one that two levels tell together.
func signed(m map[ident]uint64, id ident) (*big.Int, bool) {
	v, ok := m[id]
	n := new(big.Int).SetUint64(v)
	id.name += "_below_0"
	return n.Sub(n, new(big.Int).SetUint64(m[id])), ok
}

// same compares one number, which may be a few less or more than ours where
// the program rounds. A value that moves by itself is between both reads.
func (m *matcher) same(id ident, text string, slack int64) {
	m.t.Helper()
	want, ok := new(big.Int).SetString(text, 10)
	low, ok1 := signed(m.before, id)
	high, ok2 := signed(m.after, id)
	if !ok || !ok1 || !ok2 {
		m.t.Errorf("%+v: the program says %q, whydrop has none (%v, %v)", id, text, ok1, ok2)
		return
	}
	m.used[id] = true
	if want.Sign() != 0 {
		m.above0[id] = true
	}
	if low.Cmp(high) > 0 {
		low, high = high, low
	}
	low, high = new(big.Int).Sub(low, big.NewInt(slack)), new(big.Int).Add(high, big.NewInt(slack))
	if want.Cmp(low) < 0 || want.Cmp(high) > 0 {
		m.t.Errorf("%+v: between %v and %v, the program says %v", id, low, high, want)
	}
}

// moves compares a number that changes by itself from moment to moment, such
// as the time until something happens: only that whydrop has it, before the tool
// or after, for it may come or go meanwhile.
func (m *matcher) moves(id ident) {
	m.t.Helper()
	_, before := m.before[id]
	if _, after := m.after[id]; !before && !after {
		m.t.Errorf("%+v: whydrop has none", id)
	}
	m.used[id] = true
}

// notCompared is a list of fields that are left out, each with the reason. The
// key is a pattern for the whole path.
type notCompared map[string]string

func (n notCompared) has(path string) bool {
	for pattern := range n {
		if regexp.MustCompile("^(?:" + pattern + ")$").MatchString(path) {
			return true
		}
	}
	return false
}

// unused fails for values of these tables and of one device that nothing was
// compared with: a name that is not the tool's would be found by nobody.
func (m *matcher) unused(device uint32, except notCompared, tables ...string) {
	m.t.Helper()
	for _, id := range slices.SortedFunc(maps.Keys(m.after), func(a, b ident) int {
		return strings.Compare(a.name+a.object, b.name+b.object)
	}) {
		table, _, _ := strings.Cut(id.name, ".")
		if id.device == device && !m.used[id] && slices.Contains(tables, table) && !except.has(id.name) && !strings.HasSuffix(id.name, "_below_0") {
			m.t.Errorf("%+v = %d: no field of the program was compared with it", id, m.after[id])
		}
	}
}

// batch gives commands to ip or tc, with its options, a line each, and returns what
// they printed. A process for each would take minutes on an emulated machine.
func batch(t *testing.T, program string, lines []string) []byte {
	t.Helper()
	out, err := testkit.Batch(program, lines...)
	if err != nil {
		t.Fatalf("%v (apt-get install iproute2; make test does)", err)
	}
	return out
}
