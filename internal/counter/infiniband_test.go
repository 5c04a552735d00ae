package counter

import (
	"bytes"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"

	"github.com/whydrop/whydrop/internal/testkit"
)

// TestInfinibandTree reads a tree put together by hand; its first lines say from
// what.
func TestInfinibandTree(t *testing.T) {
	tree, err := txtar.FS(txtar.Parse(load(t, "reconstructed-infiniband.txtar")))
	if err != nil {
		t.Fatal(err)
	}
	values, err := readInfinibandTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Golden(t, "testdata/reconstructed-infiniband.golden", hardwareListing(values))
	for _, v := range values {
		if v.Level != strings.HasSuffix(v.Name, ".lifespan") || v.Source != infinibandSource || v.Device.Index != 0 {
			t.Errorf("%+v", v)
		}
	}
}

func TestInfinibandNone(t *testing.T) {
	if values, err := readInfinibandTree(fstest.MapFS{"class/net/lo": {}}); len(values) > 0 || err != nil {
		t.Errorf("%+v, %v", values, err)
	}
}

// refuses is a tree with a file that a driver refuses to give.
type refuses struct {
	fstest.MapFS
	file string
	err  error
}

func (r refuses) ReadFile(name string) ([]byte, error) {
	if strings.HasSuffix(name, r.file) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: r.err}
	}
	return r.MapFS.ReadFile(name)
}

// TestInfinibandRefused: a counter that a device does not have is left out, one
// that cannot be read is told, and the others are there.
func TestInfinibandRefused(t *testing.T) {
	tree := fstest.MapFS{
		"class/infiniband/a/ports/1/counters/x":    {Data: []byte("1\n")},
		"class/infiniband/a/ports/1/counters/y":    {Data: []byte("2\n")},
		"class/infiniband/a/ports/1/hw_counters/z": {Data: []byte("N/A (no PMA)\n")},
	}
	for _, tt := range []struct {
		err  error
		says string
	}{{unix.EINVAL, ""}, {unix.EOPNOTSUPP, ""}, {unix.EIO, "input/output error"}, {unix.EACCES, "permission denied"}} {
		values, err := readInfinibandTree(refuses{tree, "/x", tt.err})
		if len(values) != 2 || values[0].Name != "infiniband.y" || values[1].Object != "" {
			t.Errorf("%v: %+v", tt.err, values)
		}
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: %v", tt.err, err)
		}
	}
	tree["class/infiniband/a/ports/1/counters/bad"] = &fstest.MapFile{Data: []byte("many\n")}
	if values, err := readInfinibandTree(tree); len(values) != 4 || err == nil || !strings.Contains(err.Error(), "counters/bad") {
		t.Errorf("%+v, %v", values, err)
	}
}

func FuzzSysNumber(f *testing.F) {
	for _, text := range []string{"0\n", "18446744073709551615\n", "N/A (no PMA)\n", "-1", "", "\x00", "1 2"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, ok, err := parseSysNumber(text)
		if ok && (err != nil || !bytes.Contains(text, strconv.AppendUint(nil, v, 10))) {
			t.Errorf("%d, %v", v, err)
		}
	})
}
