package diagnose

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Overlay lays knowledge bases over each other, the later ones on top. It holds
// no file open and reads nothing before it is asked to.
//
// A layer has the form of the whole base: causes/ID/cause.yaml,
// reasons/*.yaml, locations/*.yaml, counters/*.yaml, stations.yaml, as much of
// it as it likes. A folder of a cause replaces the whole folder of that cause
// below, with its explanation and its cases; any other file replaces the file of
// that name, and what has a new name is added.
//
// A directory that holds folders of causes directly, as causes/ does, is no layer
// yet: that is the form of /etc/whydrop/causes.d (ID/cause.yaml, ID/explain.md,
// ID/cases/NAME.txtar). CausesIn makes one of it.
func Overlay(layers ...fs.FS) fs.FS {
	return overlay(slices.DeleteFunc(slices.Clone(layers), func(l fs.FS) bool { return l == nil }))
}

// CausesIn makes a layer of a directory that holds folders of causes, such as
// /etc/whydrop/causes.d. What has no cause.yaml in it is left out: package
// managers and editors leave other things there.
func CausesIn(dir fs.FS) fs.FS { return causesDir{dir} }

// causesDir is a directory of causes, seen as a base.
type causesDir struct{ dir fs.FS }

const causesFolder = "causes"

// Open opens a file of a cause, or the directories above.
func (c causesDir) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	switch id, _, _ := strings.Cut(strings.TrimPrefix(name, causesFolder+"/"), "/"); {
	case name == ".":
		return &dirFile{name: name, entries: []fs.DirEntry{dirEntry(causesFolder)}}, nil
	case name == causesFolder:
		list, err := c.ids()
		if err != nil {
			return nil, err
		}
		return &dirFile{name: name, entries: list}, nil
	case strings.HasPrefix(name, causesFolder+"/") && c.has(id):
		return c.dir.Open(strings.TrimPrefix(name, causesFolder+"/"))
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (c causesDir) has(id string) bool {
	_, err := fs.Stat(c.dir, path.Join(id, "cause.yaml"))
	return err == nil
}

func (c causesDir) ids() ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(c.dir, ".")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(e fs.DirEntry) bool { return !c.has(e.Name()) }), nil
}

// overlay is the layers, the lowest first.
type overlay []fs.FS

// unit is what a layer replaces as a whole: the folder of a cause, or a file.
func unit(name string) string {
	if parts := strings.SplitN(name, "/", 3); parts[0] == causesFolder && len(parts) > 1 {
		return path.Join(parts[:2]...)
	}
	return name
}

// of is the layer that a name is taken from; nil where none has it. Directories
// above units are of all layers.
func (o overlay) of(name string) fs.FS {
	for _, l := range slices.Backward(o) {
		if _, err := fs.Stat(l, unit(name)); err == nil {
			return l
		}
	}
	return nil
}

// Open opens a file of the topmost layer that has it, or a directory of all.
func (o overlay) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	l := o.of(name)
	if l == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	info, err := fs.Stat(l, name)
	if err != nil || !info.IsDir() || isCause(name) {
		return l.Open(name)
	}
	list, err := o.ReadDir(name)
	if err != nil {
		return nil, err
	}
	return &dirFile{name: path.Base(name), entries: list}, nil
}

// isCause says whether a name is the folder of a cause, or in one.
func isCause(name string) bool { return strings.HasPrefix(name, causesFolder+"/") }

// ReadDir lists what any layer has in a directory, by name.
func (o overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	layers := []fs.FS(o)
	if isCause(name) {
		layers = layers[:0:0]
		if l := o.of(name); l != nil {
			layers = append(layers, l)
		}
	}
	found := map[string]fs.DirEntry{}
	there := false
	for _, l := range layers {
		list, err := fs.ReadDir(l, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		there = true
		for _, e := range list {
			found[e.Name()] = e
		}
	}
	if !there {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	out := make([]fs.DirEntry, 0, len(found))
	for _, e := range found {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// dirEntry is a directory that no layer has by itself.
type dirEntry string

// Name is its name.
func (d dirEntry) Name() string { return string(d) }

// IsDir is true.
func (d dirEntry) IsDir() bool { return true }

// Type is that of a directory.
func (d dirEntry) Type() fs.FileMode { return fs.ModeDir }

// Info is as much as there is to say.
func (d dirEntry) Info() (fs.FileInfo, error) { return dirInfo(d), nil }

// dirInfo is the little that is known of a directory of several layers.
type dirInfo string

// Name is its name.
func (d dirInfo) Name() string { return string(d) }

// Size is 0.
func (d dirInfo) Size() int64 { return 0 }

// Mode is that of a directory which anybody may read.
func (d dirInfo) Mode() fs.FileMode { return fs.ModeDir | 0o555 }

// ModTime is not known.
func (d dirInfo) ModTime() time.Time { return time.Time{} }

// IsDir is true.
func (d dirInfo) IsDir() bool { return true }

// Sys is nil.
func (d dirInfo) Sys() any { return nil }

// dirFile is an open directory with the entries that are left to read.
type dirFile struct {
	name    string
	entries []fs.DirEntry
}

// Stat is what is known of the directory.
func (d *dirFile) Stat() (fs.FileInfo, error) { return dirInfo(d.name), nil }

// Read refuses: it is a directory.
func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

// Close does nothing.
func (d *dirFile) Close() error { return nil }

// ReadDir gives the next n entries, or all that are left.
func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := d.entries
		d.entries = nil
		return out, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	out := d.entries[:n]
	d.entries = d.entries[n:]
	return out, nil
}
