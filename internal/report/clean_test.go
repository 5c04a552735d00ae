package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/whydrop/whydrop/internal/report"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"eth0":                  "eth0",
		"":                      "",
		"größe-接口 1":            "größe-接口 1",
		"a\x1b[31mred":          `a\x1b[31mred`,
		"\x1b]0;title\x07":      `\x1b]0;title\x07`,
		"a\nb\tc\rd":            `a\x0ab\x09c\x0dd`,
		"nul\x00":               `nul\x00`,
		"del\x7f":               `del\x7f`,
		"c1\u009b31m":           `c1\x9b31m`,
		"raw c1\x9b31m":         `raw c1\x9b31m`,
		"bad\xff\xfe":           `bad\xff\xfe`,
		"cut\xe2\x80":           `cut\xe2\x80`,
		"safe\u202egnp.exe":     `safe\u202egnp.exe`,
		"isolate\u2066x\u2069":  `isolate\u2066x\u2069`,
		"mark\u200e\u061c":      `mark\u200e\u061c`,
		"zero\u200bwidth\ufeff": `zero\u200bwidth\ufeff`,
		"line\u2028par\u2029":   `line\u2028par\u2029`,
		"space\u00a0":           `space\xa0`,
		"tag\U000e0041":         `tag\U000e0041`,
		"\ufffd":                "\ufffd",
		`literal \x1b`:          `literal \x1b`,
	} {
		if got := report.Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// hostile says what in s could steer a terminal or mislead a reader.
func hostile(s string) string {
	if !utf8.ValidString(s) {
		return "invalid UTF-8"
	}
	for _, r := range s {
		switch {
		case unicode.IsControl(r): // C0, DEL, C1
			return "a control character"
		case unicode.Is(unicode.Bidi_Control, r):
			return "a bidirectional control"
		case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs):
			return "an invisible character"
		}
	}
	return ""
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{
		"eth0", "\x1b[2J", "\u009b31m", "\x9b31m", "a\u202eb", "\xff", "\xe2\x80", "接口", "\U000e0041", "\x00\x7f",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := report.Clean(s)
		if h := hostile(got); h != "" {
			t.Errorf("Clean(%q) = %q has %s", s, got, h)
		}
		if again := report.Clean(got); again != got {
			t.Errorf("Clean(%q) = %q, and again %q", s, got, again)
		}
		if hostile(s) == "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) && got != s {
			t.Errorf("Clean(%q) = %q changed what was clean", s, got)
		}
	})
}

// FuzzJSON holds that escaping changes no value and lets nothing pass.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		"eth0", "\x1b[2J", "\u009b31m", "a\u202eb", "\U000e0041", "<&>\u2028", "\x7f\\\"", "接口", "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b bytes.Buffer
		if err := report.JSON(&b, map[string]string{"k": s}); err != nil {
			t.Fatal(err)
		}
		line, ok := strings.CutSuffix(b.String(), "\n")
		if h := hostile(line); !ok || h != "" {
			t.Errorf("JSON of %q is %q: %s", s, b.String(), h)
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil {
			t.Fatalf("JSON of %q is %q: %v", s, line, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && back["k"] != want {
			t.Errorf("JSON of %q reads back as %q", s, back["k"])
		}
	})
}
