package guest

import (
	"os/exec"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Line{
		"plain output":                 {Text: "plain output"},
		"@@ vmtest up 6.1.0":           {Kind: "up", Text: "6.1.0"},
		"@@ vmtest begin 3":            {Kind: "begin", Job: 3, Text: "3"},
		"@@ vmtest end 3 124":          {Kind: "end", Job: 3, Code: 124, Text: "3 124"},
		"@@ vmtest end x 1":            {Text: "@@ vmtest end x 1"},
		"@@ vmtest error modprobe tun": {Kind: "error", Text: "modprobe tun"},
		"@@ vmtest ":                   {Text: "@@ vmtest "},
	} {
		if got := Parse(s); got != want {
			t.Errorf("Parse(%q) = %+v, want %+v", s, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("@@ vmtest end 3 124")
	f.Add("@@ vmtest begin")
	f.Fuzz(func(t *testing.T, s string) {
		if l := Parse(s); l.Kind == "" && l.Text != s {
			t.Errorf("Parse(%q) = %+v changed a job's output", s, l)
		}
	})
}

// TestScriptQuotes runs the script of jobs with a job that prints what it is
// given.
func TestScriptQuotes(t *testing.T) {
	jobs := []Job{{Dir: "/a b", Args: []string{"it's", "$HOME", "^(A|B)$"}}, {Dir: "/", Args: []string{""}, Processors: true}}
	sh := exec.Command("sh", "-c", `job() { printf '<%s>' "$@"; echo; }`+"\n"+string(script(jobs)))
	out, err := sh.CombinedOutput()
	want := "<0><0></a b><it's><$HOME><^(A|B)$>\n<1><1></><>\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %swant %s", err, out, want)
	}
}

func TestUserland(t *testing.T) {
	files, err := userland(t.Context())
	if err != nil {
		t.Fatal(err) // make test installs what it needs
	}
	loader := false
	for to := range files {
		loader = loader || strings.Contains(to, "/ld-linux")
	}
	if files["/usr/bin/sh"] == "" || !loader {
		t.Errorf("no shell, or no loader for it, in %v", files)
	}
}
