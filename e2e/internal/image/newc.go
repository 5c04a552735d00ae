// Package image writes initramfs images in cpio's newc format, puts kernel
// modules into the order in which they load, and makes modprobe's index of
// them.
//
// It must not know what the image is for, nor run or download anything.
package image

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// Types of a file in st_mode.
const (
	typeDir     = 0o040000
	typeFile    = 0o100000
	typeSymlink = 0o120000
)

// Writer writes one archive. The first error stays, and Close returns it.
type Writer struct {
	w    *bufio.Writer
	ino  uint32
	dirs map[string]bool
	err  error
}

// NewWriter begins an archive; Close ends it.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{".": true}}
}

// Dir adds a directory and those above it, unless they are there already.
func (a *Writer) Dir(name string, perm uint32) {
	name = clean(name)
	if a.dirs[name] {
		return
	}
	a.dirs[name] = true
	a.Dir(path.Dir(name), 0o755)
	a.entry(name, typeDir|perm, nil)
}

// File adds a file, and the directories above it.
func (a *Writer) File(name string, perm uint32, data []byte) {
	a.Dir(path.Dir(clean(name)), 0o755)
	a.entry(clean(name), typeFile|perm, data)
}

// Symlink adds a symbolic link, and the directories above it.
func (a *Writer) Symlink(name, target string) {
	a.Dir(path.Dir(clean(name)), 0o755)
	a.entry(clean(name), typeSymlink|0o777, []byte(target))
}

// Close ends the archive. It does not close the underlying writer.
func (a *Writer) Close() error {
	a.entry("TRAILER!!!", 0, nil)
	if err := a.w.Flush(); a.err == nil {
		a.err = err
	}
	if a.err != nil {
		return fmt.Errorf("write cpio archive: %w", a.err)
	}
	return nil
}

func clean(name string) string { return path.Clean(strings.TrimLeft(name, "/")) }

// entry writes a header, the name and the data, each padded to four bytes
// (Documentation/driver-api/early-userspace/buffer-format.rst).
func (a *Writer) entry(name string, mode uint32, data []byte) {
	a.ino++
	header := "070701"
	for _, field := range []uint32{
		a.ino, mode, 0, 0, 1, 0, uint32(len(data)), // ino mode uid gid nlink mtime filesize
		0, 0, 0, 0, uint32(len(name)) + 1, 0, // devices, namesize, check
	} {
		header += fmt.Sprintf("%08x", field)
	}
	a.write([]byte(header + name + "\x00"))
	a.write(data)
}

func (a *Writer) write(data []byte) {
	data = append(data[:len(data):len(data)], make([]byte, -len(data)&3)...)
	if _, err := a.w.Write(data); a.err == nil {
		a.err = err
	}
}
