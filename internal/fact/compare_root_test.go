//go:build root

package fact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// The tests that use this file compare facts with what other programs say of
// the same thing, by code of their own, in a namespace where nothing happens
// meanwhile.

// object is what a program says of one thing, on one level.
type object = map[string]string

// sh runs programs in the namespace of the thread, a line each. Lines of ip, or
// of tc, that follow each other are one process: each takes its time in an
// emulated machine.
func sh(t *testing.T, lines ...string) {
	t.Helper()
	for len(lines) > 0 {
		program, first := cutProgram(lines[0])
		same, n := []string{first}, 1
		for ; n < len(lines); n++ {
			next, rest := cutProgram(lines[n])
			if next != program {
				break
			}
			same = append(same, rest)
		}
		if n == 1 || !batched(program) {
			must(t, command(lines[0]))
			n = 1
		} else {
			_, err := testkit.Batch(program, same...)
			must(t, err)
		}
		lines = lines[n:]
	}
}

// cutProgram takes a program with its options from the front of a line.
func cutProgram(line string) (program, rest string) {
	program, rest, _ = strings.Cut(line, " ")
	for strings.HasPrefix(rest, "-") {
		var option string
		option, rest, _ = strings.Cut(rest, " ")
		program += " " + option
	}
	return program, rest
}

// batched says whether a program takes its commands by -batch.
func batched(program string) bool {
	name, _, _ := strings.Cut(program, " ")
	return name == "ip" || name == "tc"
}

// each puts the same words in front of lines.
func each(words string, lines ...string) (all []string) {
	for _, line := range lines {
		all = append(all, words+" "+line)
	}
	return all
}

func command(line string) error {
	words := strings.Fields(line)
	if batched(words[0]) {
		if err := testkit.Iproute2(words[0]); err != nil {
			return err
		}
	}
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, bytes.TrimSpace(out))
	}
	return nil
}

// can runs a program that needs an option of the kernel. Where this kernel was
// built without it, that is counted as a skip.
func can(t *testing.T, option, line string) bool {
	t.Helper()
	if !testkit.Wants(t, option) {
		return false
	}
	sh(t, line)
	return true
}

// objects reads the JSON of a program.
func objects(t *testing.T, line string) []map[string]any {
	t.Helper()
	words := strings.Fields(line)
	if batched(words[0]) {
		must(t, testkit.Iproute2(words[0]))
	}
	out, err := exec.Command(words[0], words[1:]...).Output()
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	all := lists(t, line, out)
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// batchObjects reads the JSON of a batch, a list for each line.
func batchObjects(t *testing.T, program string, lines ...string) [][]map[string]any {
	t.Helper()
	out, err := testkit.Batch(program, lines...)
	must(t, err)
	all := lists(t, program, out)
	if len(all) != len(lines) {
		t.Fatalf("%s: %d answers to %d lines:\n%s", program, len(all), len(lines), out)
	}
	return all
}

// lists reads the lists that a program printed one after the other.
func lists(t *testing.T, what string, out []byte) (all [][]map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(out))
	d.UseNumber()
	for {
		var list []map[string]any
		switch err := d.Decode(&list); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%s: %v\n%s", what, err, out)
		}
		all = append(all, list)
	}
}

// flat brings an object to one level: the members of one inside it follow its
// name and _, lists are put together by spaces, true and null are 1, false
// is 0.
func flat(v map[string]any) object {
	out := object{}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				walk(strings.TrimPrefix(name+"_"+k, "_"), inner)
			}
		case []any:
			var list []string
			for _, e := range v {
				if m, ok := e.(map[string]any); ok {
					walk(name, m)
					continue
				}
				list = append(list, fmt.Sprint(e))
			}
			if len(list) > 0 {
				out[name] = strings.Join(list, " ")
			}
		case bool:
			out[name] = bit(v)
		case nil:
			out[name] = "1"
		default:
			out[name] = fmt.Sprint(v)
		}
	}
	walk("", v)
	return out
}

// rename gives a member another name, if it is there.
func rename(o object, from, to string) {
	if v, ok := o[from]; ok {
		delete(o, from)
		o[to] = v
	}
}

// without takes away members, each for the reason that stands behind it.
func without(o object, reasons map[string]string) object {
	o = maps.Clone(o)
	for name := range reasons {
		delete(o, name)
	}
	return o
}

// sameSets fails where two lists do not have the same objects, in any order.
func sameSets(t *testing.T, what string, tool, got []object) {
	t.Helper()
	lines := func(list []object) []string {
		var out []string
		for _, o := range list {
			var w []string
			for _, k := range slices.Sorted(maps.Keys(o)) {
				w = append(w, k+"="+o[k])
			}
			out = append(out, strings.Join(w, " | "))
		}
		slices.Sort(out)
		return out
	}
	if d := gocmp.Diff(lines(tool), lines(got)); d != "" {
		t.Errorf("%s: - the other program, + whydrop\n%s", what, d)
	}
}

// valueAnd is a fact as an object with its value under a name.
func valueAnd(f record.Fact, name string) object {
	o := maps.Clone(f.Fields)
	if o == nil {
		o = object{}
	}
	o[name] = f.Value
	return o
}

// hostNamespace runs fn in the namespace of the host.
func hostNamespace(fn func() error) error { return netns.Do("/proc/self/ns/net", fn) }

func recordRequest(kind, arg string) record.FactRequest {
	return record.FactRequest{Kind: kind, Arg: arg}
}
