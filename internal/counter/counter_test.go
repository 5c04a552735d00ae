package counter

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

func load(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// loadMessages reads messages of rtnetlink, one in a line.
func loadMessages(t testing.TB, name string) [][]byte {
	t.Helper()
	var messages [][]byte
	for line := range bytes.Lines(load(t, name)) {
		m, err := hex.DecodeString(string(bytes.TrimSpace(line)))
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}

// listing writes values for a person and a golden file.
func listing(values []Value) []byte {
	var b bytes.Buffer
	for _, v := range values {
		fmt.Fprintf(&b, "%s\t%d\t", v.Name, v.Value)
		if v.Object != "" {
			fmt.Fprintf(&b, "%s\t", v.Object)
		}
		if v.Level {
			fmt.Fprint(&b, "level\t")
		}
		if v.Device != (record.Device{}) {
			fmt.Fprintf(&b, "%d %s\t", v.Device.Index, v.Device.Name)
		}
		fmt.Fprintf(&b, "%s\t%s\n", v.Source, v.Command)
	}
	return b.Bytes()
}

// value finds one counter of no device.
func value(t testing.TB, values []Value, name string) uint64 {
	t.Helper()
	return deviceValue(t, values, name, 0)
}

func deviceValue(t testing.TB, values []Value, name string, device uint32) uint64 {
	t.Helper()
	for _, v := range values {
		if v.Name == name && v.Device.Index == device && v.Object == "" {
			return v.Value
		}
	}
	t.Errorf("no counter %s of device %d", name, device)
	return 0
}

// parsers are all sources with the text of a kernel.
var parsers = []struct {
	sample, source string
	parse          func([]byte, string) ([]Value, error)
}{
	{"nf_conntrack-4.19", "/proc/net/stat/nf_conntrack", parseConntrack},
	{"nf_conntrack-6.18", "/proc/net/stat/nf_conntrack", parseConntrack},
	{"links-6.18.hex", linkSource, func(text []byte, _ string) ([]Value, error) { return parseLinks(unhex(text)) }},
	{"qdiscs-6.18.hex", qdiscSource, func(text []byte, _ string) ([]Value, error) {
		return parseQdiscs(unhex(text), map[uint32]string{1: "lo", 2: "vb", 3: "va"})
	}},
}

// unhex is the messages of lines of hexadecimal digits; what are none end a
// message.
func unhex(text []byte) [][]byte {
	var messages [][]byte
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		m := make([]byte, hex.DecodedLen(len(line)))
		n, _ := hex.Decode(m, line)
		messages = append(messages, m[:n])
	}
	return messages
}

func TestParseGolden(t *testing.T) {
	for _, p := range parsers {
		t.Run(p.sample, func(t *testing.T) {
			values, err := p.parse(load(t, p.sample), p.source)
			if err != nil {
				t.Fatal(err)
			}
			testkit.Golden(t, filepath.Join("testdata", p.sample+".golden"), listing(values))
		})
	}
}

// TestTruncated cuts every sample at every byte. What is then still reported
// must be the same as in the whole text: a number that lost its last digits
// is worse than none.
func TestTruncated(t *testing.T) {
	for _, p := range parsers {
		if strings.HasSuffix(p.sample, ".hex") {
			continue // TestTruncatedMessages
		}
		t.Run(p.sample, func(t *testing.T) {
			text := load(t, p.sample)
			whole, err := p.parse(text, p.source)
			if err != nil {
				t.Fatal(err)
			}
			// The sums of fewer CPUs are smaller, and no line says how many
			// there are to be.
			for n := range len(text) {
				values, err := p.parse(text[:n], p.source)
				if n > 0 && text[n-1] != '\n' && err == nil {
					t.Fatalf("no error for %d of %d bytes", n, len(text))
				}
				for i, v := range values {
					if v.Name != whole[i].Name || v.Value > whole[i].Value {
						t.Fatalf("%d bytes: %s %d, want %s %d", n, v.Name, v.Value, whole[i].Name, whole[i].Value)
					}
				}
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"eth0": "eth0", "veth1.2@if3": "veth1.2@if3", "": "''",
		"a;reboot": "'a;reboot'", "$(id)": "'$(id)'", "it's": `'it'\''s'`, "a\x1bb": "'a\x1bb'", "é": "'é'",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestParseError(t *testing.T) {
	if err := parseError("x", nil, nil); err != nil {
		t.Error(err)
	}
	errs := []error{nil}
	for i := range 5 {
		errs = append(errs, fmt.Errorf("wrong %d", i))
	}
	err := parseError("x", append(errs, errCutOff)...)
	if err == nil || err.Error() != "parse x: wrong 0\nwrong 1\nwrong 2\nand 3 more" {
		t.Errorf("%v", err)
	}
	if !errors.Is(parseError("x", errCutOff), errCutOff) {
		t.Error("the cause is lost")
	}
}
