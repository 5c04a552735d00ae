package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/whydrop/whydrop/record"
)

// The values of the field type in a stream of JSON lines.
const (
	typeInterval = "interval"
	typeDrop     = "drop"
	typeSummary  = "summary"
)

// countJSON is a count with what is known beyond its key.
type countJSON struct {
	// Class is empty where nothing judged the count.
	Class record.Class `json:"class,omitempty"`
	record.Count
	// Flows are the most frequent among the samples of the count.
	Flows []record.FlowShare `json:"flows"`
}

type intervalJSON struct {
	Type          string            `json:"type"`
	SchemaVersion int               `json:"schema_version"`
	Window        record.Window     `json:"window"`
	Counts        []countJSON       `json:"counts"`
	Accounting    record.Accounting `json:"accounting"`
}

type dropJSON struct {
	Type          string       `json:"type"`
	SchemaVersion int          `json:"schema_version"`
	Class         record.Class `json:"class,omitempty"`
	record.Drop
}

type summaryJSON struct {
	Type          string            `json:"type"`
	SchemaVersion int               `json:"schema_version"`
	Window        record.Window     `json:"window"`
	Sources       []record.Source   `json:"sources"`
	Accounting    record.Accounting `json:"accounting"`
	Blind         []record.Blind    `json:"blind"`
}

// JSON prints v as one line. Runes that could steer a terminal are escaped,
// which changes no value.
func JSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print json: %w", err)
	}
	if _, err := w.Write(escape(b.Bytes())); err != nil {
		return fmt.Errorf("print json: %w", err)
	}
	return nil
}

// escape rewrites in JSON text what Clean would not let pass. encoding/json
// escapes the controls below space alone; all others can be within strings
// only, where \u stands for them.
func escape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = append(out, b[:n]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out
}

// IntervalJSON prints iv as one line of type interval; classes and s.All are
// as for Interval. A line comes for every interval, also without counts, so
// that a reader knows that the watch is alive.
func IntervalJSON(w io.Writer, iv record.Interval, classes []record.Class, s Style) error {
	out := intervalJSON{
		Type: typeInterval, SchemaVersion: record.SchemaVersion,
		Window: iv.Window, Counts: []countJSON{}, Accounting: iv.Accounting,
	}
	flows := map[record.Key]map[record.Flow]uint64{}
	samples := map[record.Key]uint64{}
	for i := range iv.Samples {
		d := &iv.Samples[i]
		k := site(d.Key)
		samples[k]++
		if d.Packet != nil && d.Packet.Flow.IsValid() {
			if flows[k] == nil {
				flows[k] = map[record.Flow]uint64{}
			}
			flows[k][d.Packet.Flow]++
		}
	}
	for i, c := range iv.Counts {
		if hides(classes, i, s) {
			continue
		}
		k := site(c.Key)
		out.Counts = append(out.Counts, countJSON{
			Class: classOf(classes, i), Count: c, Flows: topFlows(flows[k], samples[k]),
		})
	}
	slices.SortStableFunc(out.Counts, func(a, b countJSON) int {
		return cmp.Compare(b.Drops, a.Drops)
	})
	return JSON(w, out)
}

// topFlows returns the most frequent flows; it is never nil.
func topFlows(flows map[record.Flow]uint64, of uint64) []record.FlowShare {
	out := make([]record.FlowShare, 0, len(flows))
	for f, n := range flows {
		out = append(out, record.FlowShare{Flow: f, Samples: n, Of: of})
	}
	slices.SortFunc(out, func(a, b record.FlowShare) int {
		return cmp.Or(
			cmp.Compare(b.Samples, a.Samples),
			strings.Compare(flowText(a.Flow), flowText(b.Flow)),
		)
	})
	return out[:min(len(out), maxItems)]
}

// DropJSON prints a sampled drop as one line of type drop. An empty class is
// left out.
func DropJSON(w io.Writer, d record.Drop, class record.Class) error {
	return JSON(w, dropJSON{
		Type: typeDrop, SchemaVersion: record.SchemaVersion, Class: class, Drop: d,
	})
}

// SummaryJSON prints the end of a watch as one line of type summary.
func SummaryJSON(w io.Writer, t Total) error {
	return JSON(w, summaryJSON{
		Type: typeSummary, SchemaVersion: record.SchemaVersion, Window: t.Window,
		Sources:    append([]record.Source{}, t.Sources...),
		Accounting: t.Accounting,
		Blind:      append([]record.Blind{}, t.Blind...),
	})
}
