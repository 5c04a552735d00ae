package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// mapStart is where the kernel's text begins in the maps of SystemMap. KASLR
// moves the running kernel elsewhere.
const mapStart = 0xffffffff80400000

// SystemMap writes a System.map of the running kernel, made of /proc/kallsyms
// with the addresses moved, as that of a kernel that KASLR moved is. It returns
// its path. change may make it one of another kernel, or be nil.
func SystemMap(t testing.TB, change func(string) string) string {
	t.Helper()
	NeedRoot(t)
	text, err := movedMap()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		was := text
		if text = change(text); text == was {
			t.Fatal("the map of another kernel is the same")
		}
	}
	path := filepath.Join(t.TempDir(), "System.map")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// movedMap is the map that SystemMap writes. Those symbols do not change while the
// kernel runs.
var movedMap = sync.OnceValues(func() (string, error) {
	table, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return "", err
	}
	by, ok := textStart(table)
	if !ok {
		return "", errors.New("kallsyms shows no address of _text")
	}
	by -= mapStart
	text := make([]byte, 0, len(table))
	for line := range bytes.Lines(table) {
		if bytes.IndexByte(line, '[') >= 0 {
			continue // of a module
		}
		addr, rest, _ := bytes.Cut(line, []byte{' '})
		n, err := strconv.ParseUint(string(addr), 16, 64)
		if err != nil {
			return "", fmt.Errorf("address in kallsyms: %w", err)
		}
		if rest[0] != 'A' && rest[0] != 'a' && n > by { // these are no addresses
			n -= by
		}
		text = appendAddress(text, n)
		text = append(append(text, ' '), rest...)
	}
	return string(text), nil
})

// appendAddress appends %016x: fmt takes a second for all of a map in an emulated
// machine.
func appendAddress(text []byte, n uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		text = append(text, "0123456789abcdef"[n>>shift&15])
	}
	return text
}

func textStart(table []byte) (uint64, bool) {
	line, _, ok := bytes.Cut(table, []byte(" T _text\n"))
	if !ok {
		return 0, false
	}
	addr, err := strconv.ParseUint(string(line[bytes.LastIndexByte(line, '\n')+1:]), 16, 64)
	return addr, err == nil && addr > mapStart
}

// OtherBuild moves the end of the kernel's text, as another build's lies, and
// nothing near its start.
func OtherBuild(table string) string {
	before, after, ok := strings.Cut(table, " _etext\n")
	at := strings.LastIndexByte(before, '\n') + 1
	if !ok || len(before) < at+16 {
		return table
	}
	addr, err := strconv.ParseUint(before[at:at+16], 16, 64)
	if err != nil {
		return table
	}
	return fmt.Sprintf("%s%016x%s _etext\n%s", before[:at], addr+0x40, before[at+16:], after)
}

// OtherStart moves one of the first functions behind _text.
func OtherStart(table string) string {
	lines := strings.SplitAfter(table, "\n")
	for i, line := range lines {
		if !strings.HasSuffix(line, " T _text\n") || i+20 > len(lines) {
			continue
		}
		for j := i + 10; j < i+20; j++ {
			addr, err := strconv.ParseUint(lines[j][:16], 16, 64)
			if err == nil && lines[j][17] == 'T' {
				lines[j] = fmt.Sprintf("%016x%s", addr+8, lines[j][16:])
				return strings.Join(lines, "")
			}
		}
	}
	return table
}
