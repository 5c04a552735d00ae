package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestArgs(t *testing.T) {
	for _, tt := range []struct{ argv, want []string }{
		{nil, nil},
		{[]string{"whydrop"}, []string{}},
		{[]string{"/usr/bin/whydrop", "shell"}, []string{"shell"}},
		{[]string{"dropwatch"}, []string{"shell"}},
		{[]string{"/opt/bin/dropwatch", "-l", "kas"}, []string{"shell", "-l", "kas"}},
		{[]string{"dropwatch2", "x"}, []string{"x"}},
	} {
		if got := Args(tt.argv); !slices.Equal(got, tt.want) {
			t.Errorf("%q is %q, want %q", tt.argv, got, tt.want)
		}
	}
}

func TestFindLookup(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"kasten", "none", "System.map"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "System.map")
	for method, want := range map[string]lookup{
		"": lookupNone, "kas": lookupKas, "kasfoo": lookupKas,
		"kasten":     {"./kasten", "symbols of kasten"},
		"none":       {"./none", "symbols of none"},
		"System.map": {"./System.map", "symbols of System.map"},
		path:         {path, "symbols of " + path},
	} {
		if got, err := findLookup(method); got != want || err != nil {
			t.Errorf("-l %q: %+v, %v; want %+v", method, got, err, want)
		}
	}
	if err := os.Remove("none"); err != nil {
		t.Fatal(err)
	}
	if got, err := findLookup("none"); got != lookupNone || err != nil {
		t.Errorf("-l none, without such a file: %+v, %v", got, err)
	}
	if got, err := findLookup("ka"); err == nil {
		t.Errorf("-l ka: %+v", got)
	}
}

func TestShellFlags(t *testing.T) {
	const list = "Available lookup methods:\nkas - use /proc/kallsyms\n"
	for _, args := range [][]string{{"-l", "list"}, {"-llist"}, {"--lmethod=listing"}} {
		if r := here(t, append([]string{"shell"}, args...)...); r.code != exitOK || !strings.HasPrefix(r.out, list) || r.err != "" {
			t.Errorf("%q: exit status %d\n%s%s", args, r.code, r.out, r.err)
		}
	}
	r := here(t, "shell", "-l", "\x1bfoo")
	if r.code != exitUsage || r.out != "Unknown lookup method \\x1bfoo\n" || strings.Contains(r.err, "\x1b") {
		t.Errorf("exit status %d\n%q\n%q", r.code, r.out, r.err)
	}
	for _, args := range [][]string{{"-j"}, {"now"}, {"-x"}} {
		if r := here(t, append([]string{"shell"}, args...)...); r.code != exitUsage || r.out != "" {
			t.Errorf("%q: exit status %d\n%s", args, r.code, r.out)
		}
	}
}
