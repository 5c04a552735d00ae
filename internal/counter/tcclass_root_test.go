//go:build root

package counter

import (
	"bytes"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// tc prints classes as text, also with -j (iproute2 6.1 and 7.1,
// tc/tc_class.c).

// classField is a number that tc printed of a class.
type classField struct{ name, text string }

// classTokens are the names of whydrop for the words of tc.
var classTokens = map[string]map[string]string{
	"htb":      {"lended": "htb.lends", "borrowed": "htb.borrows", "giants": "htb.giants", "tokens": "htb.tokens", "ctokens": "htb.ctokens"},
	"hfsc":     {"period": "hfsc.period", "work": "hfsc.work", "rtwork": "hfsc.rtwork", "level": "hfsc.level"},
	"drr":      {"deficit": "drr.deficit"},
	"sfq":      {"allot": "sfq.allot"},
	"fq_codel": {"deficit": "fq_codel.deficit", "count": "fq_codel.count", "lastcount": "fq_codel.lastcount", "ldelay": "fq_codel.ldelay", "drop_next": "fq_codel.drop_next"},
	"cake":     {"deficit": "cake.deficit", "count": "cake.cobalt_count", "drop_next": "cake.drop_next_us", "blue_prob": "cake.p_drop", "blue_timer": "cake.blue_timer_us"},
}

var (
	classHead = regexp.MustCompile(`^class (\S+) (\S*) `)
	classSent = regexp.MustCompile(`^ Sent (\d+) bytes (\d+) pkt`)
	classLost = regexp.MustCompile(`\(dropped (\d+), overlimits (\d+) requeues (\d+)\)`)
	classRate = regexp.MustCompile(`rate (\S+) (\d+)pps`)
	classWait = regexp.MustCompile(`backlog (\S+) (\d+)p requeues (\d+)`)
	classWord = regexp.MustCompile(`([a-z_]+):? (-?[0-9][0-9.a-zA-Z]*)`)
)

// readClass reads the lines below the first of a class.
func readClass(t *testing.T, kind, line string, fields []classField) []classField {
	t.Helper()
	take := func(re *regexp.Regexp, names ...string) {
		if m := re.FindStringSubmatch(line); m != nil {
			for i, n := range names {
				fields = append(fields, classField{n, m[i+1]})
			}
			line = strings.Replace(line, m[0], "", 1)
		}
	}
	take(classSent, "class.bytes", "class.packets")
	take(classLost, "class.drops", "class.overlimits", "class.requeues")
	take(classRate, "class.bps", "class.pps")
	take(classWait, "class.backlog", "class.qlen", "class.requeues")
	for _, m := range classWord.FindAllStringSubmatch(strings.ReplaceAll(line, " bytes", ""), -1) {
		name, ok := classTokens[kind][m[1]]
		if !ok {
			t.Errorf("class of %s: tc shows %q, whydrop has no name for it", kind, m[0])
			continue
		}
		fields = append(fields, classField{name, m[2]})
	}
	if strings.Contains(line, " dropping") {
		fields = append(fields, classField{kind + ".dropping", "1"})
	}
	return fields
}

// units are how tc writes sizes, rates and times (tc/tc_util.c and
// lib/utils_math.c): the number that they stand for, and how much of it is
// lost by rounding.
var units = []struct {
	suffix string
	times  float64
	slack  float64
}{
	{"Kbit", 1000 / 8., 1000 / 8.},
	{"Mbit", 1e6 / 8, 1e6 / 8},
	{"bit", 1 / 8., 1},
	{"Kb", 1024, 16},
	{"Mb", 1 << 20, 1024},
	{"b", 1, 0},
	{"us", 1, 0},
	{"ms", 1000, 50},
	{"s", 1e6, 50000},
}

// plainNumber takes the unit away.
func plainNumber(t *testing.T, text string) (number string, slack int64) {
	t.Helper()
	for _, u := range units {
		if v, ok := strings.CutSuffix(text, u.suffix); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Fatalf("number %q: %v", text, err)
			}
			return strconv.FormatFloat(math.Round(f*u.times), 'f', 0, 64), int64(u.slack)
		}
	}
	return text, 0
}

// compareAllClasses compares every field of every class, and of the flows that
// some queues show as classes.
func compareAllClasses(t *testing.T, devices map[string]uint32) {
	t.Helper()
	byKind := map[string]int{}
	var lines []string
	var here []uint32
	for _, s := range append(anywhere(), elsewhere()...) {
		if index, ok := devices[s.kind]; ok {
			// That of lo is no class, and stands between those of two devices.
			lines, here = append(lines, "class show dev "+s.deviceName(), "qdisc show dev lo"), append(here, index)
		}
	}
	m, out := around(t, func() []byte { return batch(t, "tc -s", lines) })
	parts := betweenQdiscs(out)
	if len(parts) != len(here) {
		t.Fatalf("classes of %d devices, want %d:\n%s", len(parts), len(here), out)
	}
	for i, index := range here {
		compareClasses(t, m, index, parts[i], byKind)
		m.unused(index, notCompared{
			`(fq_codel|cake)\.(dropping|drop_next|drop_next_us|blue_timer_us)`: "tc shows it only while the flow drops",
			`(fq_codel|cake|hfsc)\..*`:              "of the qdisc: compareQdiscs",
			`htb\.direct_pkts|sfq\.(prob|forced).*`: "of the qdisc: compareQdiscs",
		}, "class", "htb", "drr", "sfq")
	}
	for kind := range classTokens {
		if _, ok := devices[kind]; ok && byKind[kind] == 0 {
			t.Errorf("tc showed no class of %s with numbers of its own", kind)
		}
	}
	if byKind["htb"] == 0 {
		t.Error("tc showed no class of htb")
	}
}

// betweenQdiscs are the lines before each qdisc that tc shows, which has two or three
// lines itself.
func betweenQdiscs(out []byte) (parts [][]byte) {
	var part []byte
	qdisc := false
	for line := range bytes.Lines(out) {
		switch {
		case bytes.HasPrefix(line, []byte("qdisc ")):
			parts, part, qdisc = append(parts, part), nil, true
		case bytes.HasPrefix(line, []byte("class ")):
			part, qdisc = append(part, line...), false
		case !qdisc:
			part = append(part, line...)
		}
	}
	return parts
}

func compareClasses(t *testing.T, m *matcher, index uint32, out []byte, byKind map[string]int) {
	t.Helper()
	var kind, object string
	for raw := range bytes.Lines(out) {
		line := strings.TrimRight(string(raw), "\n")
		if h := classHead.FindStringSubmatch(line); h != nil {
			kind, object = h[1], "class "+h[2]
			continue
		}
		for _, f := range readClass(t, kind, line, nil) {
			id := ident{index, f.name, object}
			number, slack := plainNumber(t, f.text)
			switch f.name {
			case "fq_codel.drop_next", "cake.drop_next_us", "cake.blue_timer_us":
				m.moves(id)
			default:
				m.same(id, number, slack)
			}
			if !strings.HasPrefix(f.name, "class.") {
				byKind[kind]++
			}
		}
	}
}
