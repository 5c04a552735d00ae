package diagnose

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

// CompiledFile is where a base may have its YAML files in a form that is read
// several times faster: a line for each, with the file's name, the sum of what it
// was made of, and the decoded value as JSON. A line that is not of the very file
// beside it is not used, so nothing goes wrong where it is out of date.
const CompiledFile = "compiled.jsonl"

// compiledLine is a line of CompiledFile.
type compiledLine struct {
	File string `json:"file"`
	// Sum is the CRC-64 (ECMA) of the file and its length in bytes.
	Sum   string          `json:"sum"`
	Value json.RawMessage `json:"value"`
}

// compiledFS is a base whose files may be compiled.
type compiledFS struct {
	fs.FS
	// lines are those of CompiledFile by the names of files.
	lines map[string]compiledText
	// made takes what was decoded, where it is not nil.
	made *sync.Map
}

// compiledText is a line that was cut up and not decoded.
type compiledText struct {
	sum   string
	value []byte
}

// withCompiled finds what is compiled of a base. One that cannot be read is none.
func withCompiled(fsys fs.FS) fs.FS {
	text, err := fs.ReadFile(fsys, CompiledFile)
	if err != nil {
		return fsys
	}
	c := &compiledFS{FS: fsys, lines: map[string]compiledText{}}
	for line := range bytes.Lines(text) {
		if name, l, ok := cutLine(line); ok {
			c.lines[name] = l
		}
	}
	return c
}

// cutLine cuts up {"file":"…","sum":"…","value":…} without looking into the value.
func cutLine(line []byte) (name string, l compiledText, ok bool) {
	rest, ok1 := bytes.CutPrefix(line, []byte(`{"file":"`))
	file, rest, ok2 := bytes.Cut(rest, []byte(`","sum":"`))
	sum, rest, ok3 := bytes.Cut(rest, []byte(`","value":`))
	value, ok4 := bytes.CutSuffix(bytes.TrimSpace(rest), []byte("}"))
	return string(file), compiledText{string(sum), value}, ok1 && ok2 && ok3 && ok4
}

var crcTable = crc64.MakeTable(crc64.ECMA)

func sumOf(text []byte) string {
	return fmt.Sprintf("%016x-%d", crc64.Checksum(text, crcTable), len(text))
}

// decoded fills v with what is compiled of a file, and says whether there is
// something.
func (c *compiledFS) decoded(name string, text []byte, v any) bool {
	l, ok := c.lines[name]
	return ok && l.sum == sumOf(text) && json.Unmarshal(l.value, v) == nil
}

// Compile checks a base as Load does and returns what its CompiledFile should be.
func Compile(fsys fs.FS) ([]byte, error) {
	var made sync.Map
	if _, err := load(&compiledFS{FS: fsys, made: &made}, fresh); err != nil {
		return nil, err
	}
	var lines []compiledLine
	var errs []error
	made.Range(func(name, v any) bool {
		l := compiledLine{File: name.(string)}
		text, err := fs.ReadFile(fsys, l.File)
		if err == nil {
			l.Sum = sumOf(text)
			l.Value, err = slim(v.([]byte))
		}
		lines, errs = append(lines, l), append(errs, err)
		return true
	})
	slices.SortFunc(lines, func(a, b compiledLine) int { return strings.Compare(a.File, b.File) })
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		errs = append(errs, enc.Encode(l))
	}
	errs = append(errs, w.Flush())
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("compile knowledge: %w", err)
	}
	return out.Bytes(), nil
}

// slim leaves out fields that have the zero value.
func slim(text []byte) ([]byte, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(slimmed(v)); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

func slimmed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			switch x := slimmed(x).(type) {
			case nil:
				delete(v, k)
			case string, bool, json.Number:
				if x == "" || x == false || x == json.Number("0") {
					delete(v, k)
				}
			}
		}
	case []any:
		for i := range v {
			v[i] = slimmed(v[i])
		}
	}
	return v
}
