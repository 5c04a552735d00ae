package results

import (
	"strings"
	"testing"
)

// What test binaries of Go 1.26 print under -test.v=test2json.
const (
	good = "\x16=== RUN   TestGood\npartial\x16--- PASS: TestGood (0.00s)\n\x16=== NAME  \n"
	old  = "\x16=== RUN   TestOld\n    x_test.go:4: came with\n        Linux 6.18\n" +
		"\x16--- SKIP: TestOld (0.00s)\n\x16=== NAME  \n"
	parent = "\x16=== RUN   TestParent\n\x16=== RUN   TestParent/a\n\x16--- PASS: TestParent/a (0.00s)\n" +
		"\x16=== NAME  TestParent\n\x16=== RUN   TestParent/b\n    x_test.go:5: bad\n" +
		"\x16--- FAIL: TestParent/b (0.00s)\n\x16=== NAME  TestParent\n\x16--- FAIL: TestParent (0.00s)\n\x16=== NAME  \n"
	slow  = "\x16=== RUN   TestSlow\n"
	all   = good + old + parent
	right = "\x16PASS\n"
	wrong = "\x16FAIL\n"
)

func count(t *testing.T, output string, code int) *Tally {
	t.Helper()
	events, err := Convert(t.Context(), "suite:pkg", output, code, 1.5)
	if err != nil {
		t.Fatal(err)
	}
	var tally Tally
	tally.Count(events)
	return &tally
}

func names(list []Result) string {
	var s []string
	for _, r := range list {
		s = append(s, r.Name)
	}
	return strings.Join(s, ", ")
}

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		name, output    string
		code, passed    int
		failed, skipped string
	}{
		{"all kinds", all + wrong, 1, 2, "suite:pkg TestParent/b", "suite:pkg TestOld"},
		{"good", good + right, 0, 1, "", ""},
		{"good, then a bad exit", good + right, 3, 1, "suite:pkg", ""},
		{"killed", good + slow, 124, 1, "suite:pkg TestSlow", ""},
		{"killed without status", good + slow, 0, 1, "suite:pkg TestSlow", ""},
		{"nothing", "", 0, 0, "suite:pkg", ""},
		{"never started", "sh: not found\n", 127, 0, "suite:pkg", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := count(t, tt.output, tt.code)
			if got.Passed != tt.passed || names(got.Failed) != tt.failed || names(got.Skipped) != tt.skipped {
				t.Errorf("%d passed, failed %q, skipped %q; want %d, %q, %q",
					got.Passed, names(got.Failed), names(got.Skipped), tt.passed, tt.failed, tt.skipped)
			}
		})
	}
}

func TestReason(t *testing.T) {
	got := count(t, all+wrong, 1)
	if r := got.Skipped[0].Reason(); r != "x_test.go:4: came with\nLinux 6.18" {
		t.Errorf("skipped because %q", r)
	}
	if r := got.Failed[0].Reason(); r != "x_test.go:5: bad" {
		t.Errorf("failed because %q", r)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"Action":"run","Package":"p","Test":"T/a"}` + "\n" + `{"Action":"fail","Package":"p"}`))
	f.Fuzz(func(t *testing.T, stream []byte) {
		events, err := decode(stream)
		if err != nil {
			return
		}
		var tally Tally
		tally.Count(events)
		if passed := tally.Passed; passed > len(events) {
			t.Errorf("%d tests passed in %d events", passed, len(events))
		}
	})
}
