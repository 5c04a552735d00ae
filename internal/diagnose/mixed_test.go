package diagnose

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// labCase is an observation of the lab with the causes that are found in it.
type labCase struct {
	name   string
	o      record.Observation
	causes []string
}

func labCases(t *testing.T, k *Knowledge) []labCase {
	t.Helper()
	names, err := fs.Glob(knowledge.FS, "causes/*/cases/lab-6.18.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var out []labCase
	for _, name := range names {
		text, err := fs.ReadFile(knowledge.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		files, err := splitCase(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := labCase{name: strings.Split(name, "/")[1]}
		if err := json.Unmarshal([]byte(files[caseObservation]), &c.o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, f := range everyFinding(Run(&c.o, k, Options{}).Findings) {
			c.causes = append(c.causes, f.Cause)
		}
		out = append(out, c)
	}
	return out
}

// inOne puts all namespaces of an observation into one, as device number n of a
// host with several: its devices have names and numbers of their own.
func inOne(t *testing.T, o record.Observation, n int) record.Observation {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i := range o.Counters {
		names[o.Counters[i].Device.Name] = true
	}
	for name := range names {
		if name != "" && name != "lo" {
			text = regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`\b`).ReplaceAll(text, fmt.Appendf(nil, "%sx%d", name, n))
		}
	}
	text = regexp.MustCompile(`"device":\{"index":([2-9]|[0-9]{2,})`).ReplaceAll(text, fmt.Appendf(nil, `"device":{"index":${1}%03d`, n))
	text = regexp.MustCompile(`"inode":40265[0-9]{5}(,"name":"[^"]*")?`).ReplaceAll(text, []byte(`"inode":4026532000,"name":"both"`))
	var out record.Observation
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// background is what a host that is well shows besides: old timestamps, a
// traceroute, and an ARP answer that packets waited for.
func background(t *testing.T) record.Observation {
	t.Helper()
	var out record.Observation
	for i, id := range []string{"n-tcp-old-timestamp", "n-traceroute", "n-arp-wait"} {
		text, err := fs.ReadFile(knowledge.FS, "causes/"+id+"/cases/basic.txtar")
		if err != nil {
			t.Fatal(err)
		}
		files, err := splitCase(text)
		if err != nil {
			t.Fatal(err)
		}
		var o record.Observation
		if err := json.Unmarshal([]byte(files[caseObservation]), &o); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			out = o
		} else {
			out = mix(out, o)
		}
	}
	return out
}

// notTold are pairs of causes of which one makes the other doubtful.
var notTold = map[string]string{
	"neigh-failed tcp-syn-queue":     "handshakes that end by the ICMP errors of a failed neighbour are in ListenDrops as well",
	"l2-otherhost vlan-unconfigured": "the same reason and function, in one namespace",
}

// TestMixed has two and three of the losses that the lab recorded at once, in one
// namespace and over background: all are named, the greatest first, and no other.
func TestMixed(t *testing.T) {
	alone(t)
	k := builtIn(t)
	cases := labCases(t, k)
	noise := inOne(t, background(t), 9)
	r := rand.New(rand.NewPCG(21, 22))
	const n = 250
	wrong := 0
	type place struct{ picked, device int }
	moved := map[place]record.Observation{}
	for i := range n {
		picked := r.Perm(len(cases))[:2+i%2]
		slices.Sort(picked)
		var names, want []string
		o := noise
		for j, p := range picked {
			at := place{p, j + 1}
			if _, ok := moved[at]; !ok {
				moved[at] = inOne(t, cases[p].o, at.device)
			}
			o = mix(o, moved[at])
			names = append(names, cases[p].name)
			want = append(want, cases[p].causes...)
		}
		if why := mixedUp(&o, k, names, want); why != "" {
			wrong++
			t.Logf("%s: %s", strings.Join(names, " + "), why)
		}
	}
	// What is left are numbers that two causes share by chance.
	if wrong*50 > n {
		t.Errorf("%d of %d mixtures are not told apart", wrong, n)
	}
}

// mixedUp says what is wrong with the diagnosis of a mixture; "" where nothing is.
func mixedUp(o *record.Observation, k *Knowledge, names, want []string) string {
	d := Run(o, k, Options{})
	var got []string
	for _, f := range everyFinding(d.Findings) {
		got = append(got, f.Cause)
		if f.Cause != record.CauseNotKnown && !slices.Contains(want, f.Cause) {
			return fmt.Sprintf("%s is not in it", f.Cause)
		}
	}
	for _, c := range want {
		told := slices.ContainsFunc(names, func(a string) bool {
			return slices.ContainsFunc(names, func(b string) bool { return notTold[a+" "+b] != "" })
		})
		if c != record.CauseNotKnown && !slices.Contains(got, c) && !told {
			return fmt.Sprintf("lacks %s, has %v", c, got)
		}
	}
	for i := 1; i < len(d.Findings); i++ {
		if d.Findings[i].Explains() > d.Findings[i-1].Explains() {
			return fmt.Sprintf("%s comes before the greater %s", d.Findings[i-1].Cause, d.Findings[i].Cause)
		}
	}
	if d.Accounting.DropsHiddenExpected+d.Accounting.DropsHiddenBenign == 0 {
		return "nothing of the background is hidden"
	}
	return ""
}
