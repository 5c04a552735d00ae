package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// ownDir writes files of a directory of causes.
func ownDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// acme is a cause that nobody else has.
const acme = `id: acme-shaper
title: "${drops} packets were refused by the Acme shaper"
class: policy
station: qdisc
direction: tx
drops:
  - reasons: [NOT_SPECIFIED, NO_REASON]
    symbols: [acme_shape_xmit]
verify:
  - "acmectl show"
`

const acmeText = `# The Acme shaper refused packets

## What happened

They were too fast.

## How to recognise it

By the function.

## What to do

Ask Acme.

## Not to be confused with

Nothing.
`

const acmeCase = `Made up.
-- observation.json --
{
  "kernel": {"release": "6.18.0"},
  "window": {"duration_ns": 10000000000},
  "counts": [
    {"reason": {"name": "NOT_SPECIFIED"}, "location": {"symbol": "acme_shape_xmit"}, "netns": {"inode": 4026531833, "name": "host"}, "drops": 12}
  ]
}
-- want.yaml --
findings:
  - {cause: acme-shaper, drops: 12}
-- near/other.diff --
-    {"reason": {"name": "NOT_SPECIFIED"}, "location": {"symbol": "acme_shape_xmit"}, "netns": {"inode": 4026531833, "name": "host"}, "drops": 12}
+    {"reason": {"name": "NOT_SPECIFIED"}, "location": {"symbol": "acme_other_xmit"}, "netns": {"inode": 4026531833, "name": "host"}, "drops": 12}
-- near/other.yaml --
never: [acme-shaper]
`

func acmeFiles(prefix string) map[string]string {
	return map[string]string{
		prefix + "acme-shaper/cause.yaml": acme, prefix + "acme-shaper/explain.md": acmeText,
		prefix + "acme-shaper/cases/basic.txtar": acmeCase,
	}
}

// Causes of somebody's own are found, explained and checked as those that are
// built in, in either form of a directory.
func TestOwnKnowledge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the race detector sees the base read in TestOwnKnowledgeOverrides and in internal/diagnose")
	}
	for name, dir := range map[string]string{
		"causes.d": ownDir(t, acmeFiles("")), "a base": ownDir(t, acmeFiles("causes/")),
	} {
		if r := here(t, "explain", "acme-shaper", "--knowledge", dir); r.code != exitOK || !strings.Contains(r.out, "The Acme shaper refused packets") {
			t.Errorf("%s: %+v", name, r)
		}
		if r := here(t, "--knowledge", dir, "explain", "udp-rcvbuf"); r.code != exitOK {
			t.Errorf("%s: what is built in is not there any more: %+v", name, r)
		}
		r := here(t, "knowledge", "lint", dir)
		for line := range strings.Lines(r.out) {
			if strings.Contains(line, "acme-shaper") {
				t.Errorf("%s: %s", name, line)
			}
		}
		if r.code == exitUsage {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := here(t, "explain", "acme-shaper"); r.code != exitUsage {
		t.Errorf("without the directory: %+v", r)
	}
}

// A cause of one's own takes the place of one with the same id.
func TestOwnKnowledgeOverrides(t *testing.T) {
	text, err := os.ReadFile("../../knowledge/causes/udp-rcvbuf/cause.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "title:") {
			lines[i] = `title: "ask the database team"`
		}
	}
	dir := ownDir(t, map[string]string{
		"udp-rcvbuf/cause.yaml": strings.Join(lines, "\n"), "udp-rcvbuf/explain.md": acmeText, "README": "left out",
	})
	file := rcvbufFile(t, "f", 2000, 20_000, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if r := here(t, "report", file, "--knowledge", dir); !strings.Contains(r.out, "ask the database team") {
		t.Errorf("%+v", r)
	}
	if r := here(t, "report", file); strings.Contains(r.out, "ask the database team") {
		t.Errorf("without the directory: %+v", r)
	}
}

// A directory that is not good is refused by its name and that of the file, that of
// the host too.
func TestBadOwnKnowledge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the race detector sees the base read in TestOwnKnowledgeOverrides and in internal/diagnose")
	}
	bad := acmeFiles("")
	bad["acme-shaper/cause.yaml"] = acme + "colour: blue\n"
	dir, good := ownDir(t, bad), ownDir(t, acmeFiles(""))
	notDir := filepath.Join(good, "acme-shaper", "cause.yaml")
	for _, args := range [][]string{
		{"explain", "udp-rcvbuf", "--knowledge", dir},
		{"explain", "udp-rcvbuf", "--knowledge", good, "--knowledge", dir},
		{"report", recorded(t, true), "--knowledge", dir},
	} {
		r := here(t, args...)
		if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, dir) || !strings.Contains(r.err, "acme-shaper/cause.yaml") || !strings.Contains(r.err, "colour") {
			t.Errorf("%q: %+v", args, r)
		}
	}
	for _, path := range []string{"/nonexistent/causes", notDir} {
		if r := here(t, "explain", "udp-rcvbuf", "--knowledge", path); r.code != exitUsage || !strings.Contains(r.err, "--knowledge: ") || !strings.Contains(r.err, path) {
			t.Errorf("%s: %+v", path, r)
		}
	}
	if r := here(t, "knowledge", "lint", t.TempDir()); r.code != exitUsage || !strings.Contains(r.err, "neither a knowledge base") {
		t.Errorf("an empty directory: %+v", r)
	}
	for path, want := range map[string]string{
		t.TempDir(): "neither a knowledge base", filepath.Join(good, "acme-shaper"): "the folder of one cause; name the directory that holds it",
	} {
		for _, cmd := range [][]string{{"explain", "udp-rcvbuf", "--knowledge", path}, {"knowledge", "lint", path}} {
			if r := here(t, cmd...); r.code != exitUsage || r.out != "" || !strings.Contains(r.err, path) || !strings.Contains(r.err, want) {
				t.Errorf("%q: %+v", cmd, r)
			}
		}
	}
	was := ownCauses
	defer func() { ownCauses = was }()
	ownCauses = dir
	if r := here(t, "explain", "udp-rcvbuf"); r.code != exitUsage || !strings.Contains(r.err, dir) || !strings.Contains(r.err, "acme-shaper/cause.yaml") {
		t.Errorf("that of the host: %+v", r)
	}
	ownCauses = notDir
	if r := here(t, "explain", "udp-rcvbuf"); r.code != exitUsage || !strings.Contains(r.err, notDir+": not a directory") {
		t.Errorf("that of the host is a file: %+v", r)
	}
	ownCauses = good
	if r := here(t, "explain", "acme-shaper"); r.code != exitOK {
		t.Errorf("that of the host: %+v", r)
	}
}

// locked is a directory of which one folder may not be read.
type locked struct {
	fs.FS
	folder string
}

func (l locked) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == l.folder {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return fs.ReadDir(l.FS, name)
}

// What may not be read is not taken for empty.
func TestUnreadableKnowledge(t *testing.T) {
	own := fstest.MapFS{"a/cause.yaml": {}, "README": {}}
	base := fstest.MapFS{"causes/a/cause.yaml": {}, "reasons/r.yaml": {}, ".git/x": {}}
	for _, c := range []struct {
		root   fs.FS
		base   bool
		folder string
		good   bool
	}{
		{own, false, "", true},
		{own, false, ".", false},
		{own, false, "a", false},
		{base, true, "", true},
		{base, true, "causes", false},
		{base, true, "causes/a", false},
		{base, true, "reasons", false},
		{base, true, ".git", true},
	} {
		if err := readable(locked{c.root, c.folder}, c.base); (err == nil) != c.good {
			t.Errorf("%q may not be read: %v", c.folder, err)
		}
	}
}

func TestFileBesideOwnKnowledge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the race detector sees the base read in TestOwnKnowledgeOverrides and in internal/diagnose")
	}
	dir := ownDir(t, acmeFiles(""))
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := here(t, "explain", "acme-shaper", "--knowledge", dir); r.code != exitOK {
		t.Errorf("with a file beside the causes: %+v", r)
	}
}
