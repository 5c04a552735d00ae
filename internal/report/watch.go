package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/whydrop/whydrop/record"
)

// row is one line of Interval.
type row struct {
	rowKey
	drops uint64
	// first is a key of the row, for rows that were not sampled.
	first   record.Key
	flows   map[string]uint64
	samples uint64
}

// rowKey is what the lines of an interval are told apart by.
type rowKey struct {
	location, reason, device, netns string
	class                           record.Class
}

// Interval prints one line for each location, reason, device and namespace
// with drops in iv, the most drops first, in columns. Nothing is printed
// where nothing was dropped.
//
// classes judge iv.Counts in their order. With them every line says its
// class, and hidden classes are left out unless s.All; nil shows all.
func Interval(w io.Writer, iv record.Interval, classes []record.Class, s Style) error {
	rows := intervalRows(iv, classes, s)
	if len(rows) == 0 {
		return nil
	}
	cells := make([][]string, len(rows))
	for i, r := range rows {
		cells[i] = []string{
			fmt.Sprintf("%d", r.drops), r.location, r.reason, string(r.class), r.device, r.netns, r.what(),
		}
	}
	widths := columnWidths(cells)
	var b strings.Builder
	for i, c := range cells {
		fmt.Fprintf(&b, "%*s drops at %s  %s  ", widths[0], c[0], pad(c[1], widths[1]), pad(c[2], widths[2]))
		if widths[3] > 0 {
			b.WriteString(s.paint(rows[i].class, pad(c[3], widths[3])) + "  ")
		}
		line := fmt.Sprintf("dev %s  netns %s  %s", pad(c[4], widths[4]), pad(c[5], widths[5]), c[6])
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print interval: %w", err)
	}
	return nil
}

// hides says whether count i is left out.
func hides(classes []record.Class, i int, s Style) bool {
	return classes != nil && !s.All && !classes[i].Shown()
}

func classOf(classes []record.Class, i int) record.Class {
	if classes == nil {
		return ""
	}
	return classes[i]
}

func intervalRows(iv record.Interval, classes []record.Class, s Style) []*row {
	rows := map[rowKey]*row{}
	sites := map[record.Key]*row{}
	var out []*row
	for i, c := range iv.Counts {
		if hides(classes, i, s) {
			continue
		}
		k := rowKey{
			location: placeText(c.Key), reason: reasonText(c.Reason),
			device: deviceText(c.Device), netns: netnsText(c.NetNS),
			class: classOf(classes, i),
		}
		r, ok := rows[k]
		if !ok {
			r = &row{rowKey: k, first: c.Key, flows: map[string]uint64{}}
			rows[k] = r
			out = append(out, r)
		}
		r.drops += c.Drops
		sites[site(c.Key)] = r
	}
	for i := range iv.Samples {
		if r, ok := sites[site(iv.Samples[i].Key)]; ok {
			r.samples++
			r.flows[sampleText(iv.Samples[i].Packet)]++
		}
	}
	slices.SortFunc(out, func(a, b *row) int {
		return cmp.Or(
			cmp.Compare(b.drops, a.drops),
			strings.Compare(a.location, b.location), strings.Compare(a.reason, b.reason),
			strings.Compare(a.device, b.device), strings.Compare(a.netns, b.netns),
			strings.Compare(string(a.class), string(b.class)),
		)
	})
	return out
}

// site is a key without the names that user space adds, which may be found
// out between a sample and its count.
func site(k record.Key) record.Key {
	k.NetNS.Name, k.Device.Name = "", ""
	return k
}

// sampleText names what samples of a row are told apart by: the flow, so
// that segments of one connection count together, else the whole packet.
func sampleText(p *record.Packet) string {
	if p != nil && p.Flow.IsValid() {
		return flowText(p.Flow)
	}
	return packetText(p)
}

// what is the row's most frequent sample, or what its key tells.
func (r *row) what() string {
	best, n := "", uint64(0)
	for f, c := range r.flows {
		if f != "" && (c > n || c == n && f < best) {
			best, n = f, c
		}
	}
	if n == 0 {
		return keyText(r.first)
	}
	return fmt.Sprintf("%s (%d of %s)", best, n, plural(r.samples, "sample"))
}

// pad fills s with spaces to n columns.
func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s)))
}

func columnWidths(cells [][]string) []int {
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	return widths
}

// clockText is when a drop happened by the kernel's clock, or by the host's where
// a capture has that alone.
func clockText(d record.Drop) string {
	if d.KernelTime == 0 && !d.Time.IsZero() {
		return d.Time.Format("15:04:05.000000")
	}
	return fmt.Sprintf("%5d.%06d", d.KernelTime/1e9, d.KernelTime%1e9/1e3)
}

// Each prints one sampled drop in one line: the kernel's clock, why, where,
// the packet, and last the task that ran on the CPU, which is not the owner.
// An empty class is left out.
func Each(w io.Writer, d record.Drop, class record.Class, s Style) error {
	parts := []string{
		fmt.Sprintf("[%s] %s at %s", clockText(d), reasonText(d.Reason), placeText(d.Key)),
	}
	if class != "" {
		parts = append(parts, s.paint(class, Clean(string(class))))
	}
	parts = append(parts, "dev "+deviceText(d.Device), "netns "+netnsText(d.NetNS))
	if d.Direction != record.DirectionUnknown && d.Direction != "" {
		parts = append(parts, Clean(string(d.Direction)))
	}
	what := packetText(d.Packet)
	if what == "" {
		what = keyText(d.Key)
	}
	if what != "" {
		parts = append(parts, what)
	}
	parts = append(parts, fmt.Sprintf("len %d", d.Length))
	if d.Socket != nil {
		parts = append(parts, socketText(*d.Socket))
	}
	if d.CurrentTask != (record.Task{}) { // a source may not tell
		parts = append(parts, "current task "+taskText(d.CurrentTask))
	}
	if _, err := io.WriteString(w, strings.Join(parts, "  ")+"\n"); err != nil {
		return fmt.Errorf("print drop: %w", err)
	}
	return nil
}

// placeText is where packets were dropped.
func placeText(k record.Key) string {
	if k.Hardware() {
		return "hardware"
	}
	return Clean(k.Location.String())
}

func socketText(s record.Socket) string {
	text := "socket without inode"
	if s.Inode != 0 {
		text = fmt.Sprintf("socket inode %d", s.Inode)
	}
	if s.State != "" {
		text += " " + Clean(s.State)
	}
	return text
}

func taskText(t record.Task) string {
	if t.TID != 0 && t.TID != t.PID {
		return fmt.Sprintf("%s[%d/%d]", Clean(t.Comm), t.PID, t.TID)
	}
	return fmt.Sprintf("%s[%d]", Clean(t.Comm), t.PID)
}

// Total is the whole of a watch, printed at its end.
type Total struct {
	Window     record.Window
	Sources    []record.Source
	Accounting record.Accounting
	Blind      []record.Blind
}

// Summary prints what was watched in all, with its accounting. With s.Quiet
// it prints only what makes the picture incomplete.
func Summary(w io.Writer, t Total, s Style) error {
	var b strings.Builder
	if !s.Quiet {
		wrap(&b, field("watched"), seconds(t.Window.Duration), s.width())
	}
	writeBooks(&b, t.Accounting, false, t.Sources, t.Blind, s)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print summary: %w", err)
	}
	return nil
}
