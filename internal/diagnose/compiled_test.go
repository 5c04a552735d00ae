package diagnose_test

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
)

var updateCompiled = flag.Bool("update-compiled", false, "write knowledge/compiled.jsonl anew")

// TestCompiled: the file that is loaded fast is that of the YAML beside it.
func TestCompiled(t *testing.T) {
	want, err := diagnose.Compile(knowledge.FS)
	if err != nil {
		t.Fatal(err)
	}
	if *updateCompiled {
		if err := os.WriteFile(filepath.Join("..", "..", "knowledge", diagnose.CompiledFile), want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := fs.ReadFile(knowledge.FS, diagnose.CompiledFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("knowledge/%s is not of the files beside it: run `make knowledge`", diagnose.CompiledFile)
	}
}

// TestCompiledSaysTheSame: with the compiled file, with none, with one that is out
// of date or damaged, the same is loaded.
func TestCompiledSaysTheSame(t *testing.T) {
	diagnose.Alone(t)
	base := fstest.MapFS{}
	err := fs.WalkDir(knowledge.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".txtar") {
			return err
		}
		text, err := fs.ReadFile(knowledge.FS, name)
		base[name] = &fstest.MapFile{Data: text}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := loadedText(t, knowledge.FS, diagnose.Load)
	good, err := diagnose.Compile(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"as it should be": good,
		"out of date":     bytes.ReplaceAll(good, []byte(`"sum":"`), []byte(`"sum":"0`)),
		"cut off":         good[:len(good)/2],
		"no JSON":         bytes.ReplaceAll(good, []byte(`"value":{`), []byte(`"value":{{`)),
		"empty":           {},
	} {
		base[diagnose.CompiledFile] = &fstest.MapFile{Data: text}
		if got := loadedText(t, base, diagnose.LoadAccepted); got != want {
			t.Errorf("%s: something else is loaded", name)
		}
	}
	// A file that was changed is the one that counts.
	base[diagnose.CompiledFile] = &fstest.MapFile{Data: good}
	const cause = "causes/udp-rcvbuf/cause.yaml"
	base[cause] = &fstest.MapFile{Data: bytes.Replace(base[cause].Data, []byte("class: capacity"), []byte("class: fault"), 1)}
	k, err := diagnose.LoadAccepted(base)
	if err != nil {
		t.Fatal(err)
	}
	if c := k.Cause("udp-rcvbuf"); c.Class != "fault" {
		t.Errorf("class %s of the compiled file, not of the YAML beside it", c.Class)
	}
}

// loadedText is what a base says once it is loaded.
func loadedText(t *testing.T, fsys fs.FS, load func(fs.FS) (*diagnose.Knowledge, error)) string {
	t.Helper()
	k, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.Text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
