package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// FileVersion is the version of the container that Writer writes: NDJSON, one
// object a line, each with a type. It is 0 while the container may still be
// replaced; the types inside follow SchemaVersion.
const FileVersion = 0

// magic is the type of a file's first line.
const magic = "whydrop-record"

// maxLine bounds a line of a file, in bytes: the largest is an interval with
// every key of every CPU.
const maxLine = 64 << 20

// The classes of error that Reader returns.
var (
	// ErrNotRecord says that a file is no observation.
	ErrNotRecord = errors.New("not a whydrop record")
	// ErrTruncated says that a file ends before its closing line: the
	// program that wrote it was stopped. What was read until then is good.
	ErrTruncated = errors.New("record ends early")
)

// Header opens a stream: what is known before the first drop.
type Header struct {
	Host    Host      `json:"host"`
	Kernel  Kernel    `json:"kernel"`
	Start   time.Time `json:"start"`
	Sources []Source  `json:"sources"`
	Blind   []Blind   `json:"blind"`
	// Anchors are places of the kernel whose names and addresses are both
	// known: they tell later where a file of symbols lay in it, and whether that
	// is of this kernel. Empty where addresses were hidden.
	Anchors []Anchor `json:"anchors,omitempty"`
	// Asked is what the observation was narrowed to; nil where that is nothing or
	// not known.
	Asked *Asked `json:"asked,omitempty"`
}

// Asked is what an observation was narrowed to, in the words in which it was asked
// for, so that the same can be asked for again.
type Asked struct {
	// Interfaces, Reasons and NetNS are the names that drops had to have one of.
	Interfaces []string `json:"interfaces,omitempty"`
	Reasons    []string `json:"reasons,omitempty"`
	NetNS      []string `json:"netns,omitempty"`
	// Filter is the traffic whose findings came first, as internal/filter reads
	// it; PID is the process whose traffic it was, 0 without one. Neither leaves
	// anything out of the record.
	Filter string `json:"filter,omitempty"`
	PID    int    `json:"pid,omitempty"`
}

// Interval is what happened between two reports. Counts and Accounting are
// of this interval alone.
type Interval struct {
	Window     Window     `json:"window"`
	Counts     []Count    `json:"counts"`
	Samples    []Drop     `json:"samples"`
	Accounting Accounting `json:"accounting"`
}

// Trailer closes a stream: what was learned by the end.
type Trailer struct {
	End time.Time `json:"end"`
	// Sources and Blind replace those of the Header.
	Sources []Source `json:"sources"`
	Blind   []Blind  `json:"blind"`
	// Counters and Facts are those of the whole window.
	Counters       []Counter `json:"counters,omitempty"`
	CountersWindow Window    `json:"counters_window,omitzero"`
	Facts          []Fact    `json:"facts,omitempty"`
}

// line is one line of a file; exactly one of the pointers is set.
type line struct {
	Type    string `json:"type"`
	Version int    `json:"version,omitempty"`
	Schema  int    `json:"schema_version,omitempty"`

	Header   *Header   `json:"header,omitempty"`
	Interval *Interval `json:"interval,omitempty"`
	Trailer  *Trailer  `json:"trailer,omitempty"`
}

// Writer writes an observation while it is made. Each call writes one whole
// line, so that a file of a killed program is good up to its last line.
type Writer struct {
	w *bufio.Writer
}

// NewWriter writes the header and returns a Writer for the rest.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	rw := &Writer{w: bufio.NewWriter(w)}
	err := rw.put(line{Type: magic, Version: FileVersion, Schema: SchemaVersion, Header: &h})
	return rw, err
}

// Interval writes one interval.
func (w *Writer) Interval(iv Interval) error {
	return w.put(line{Type: "interval", Interval: &iv})
}

// Close writes the closing line. It does not close the underlying file.
func (w *Writer) Close(t Trailer) error {
	return w.put(line{Type: "end", Trailer: &t})
}

func (w *Writer) put(l line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if _, err := w.w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// Reader reads what Writer wrote.
type Reader struct {
	s       *bufio.Scanner
	n       int
	header  Header
	trailer *Trailer
}

// NewReader reads the header. It returns ErrNotRecord for any other file and
// an error that names both versions for one of a later program.
func NewReader(r io.Reader) (*Reader, error) {
	rd := &Reader{s: bufio.NewScanner(r)}
	rd.s.Buffer(make([]byte, 0, 64<<10), maxLine)
	l, err := rd.next()
	if errors.Is(err, io.EOF) || errors.Is(err, errLine) || errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("read record: line 1: %w", ErrNotRecord)
	}
	if err != nil {
		return nil, err
	}
	if l.Type != magic {
		return nil, fmt.Errorf("read record: line 1: %w", ErrNotRecord)
	}
	if l.Version != FileVersion || l.Schema != SchemaVersion {
		return nil, fmt.Errorf("read record: file version %d, schema %d; this program reads version %d, schema %d",
			l.Version, l.Schema, FileVersion, SchemaVersion)
	}
	if l.Header == nil {
		return nil, fmt.Errorf("read record: line 1: no header: %w", ErrNotRecord)
	}
	rd.header = *l.Header
	return rd, nil
}

// Header returns what the file began with.
func (r *Reader) Header() Header { return r.header }

// Next returns the next interval. At the end it returns io.EOF, or
// ErrTruncated where the closing line is missing.
func (r *Reader) Next() (Interval, error) {
	if r.trailer != nil {
		return Interval{}, io.EOF
	}
	l, err := r.next()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, errLine) && r.last():
		return Interval{}, fmt.Errorf("read record: after line %d: %w", r.n, ErrTruncated)
	case err != nil:
		return Interval{}, err
	case l.Interval != nil:
		return *l.Interval, nil
	case l.Trailer != nil:
		r.trailer = l.Trailer
		return Interval{}, io.EOF
	}
	return Interval{}, fmt.Errorf("read record: line %d: unknown type %q", r.n, l.Type)
}

// Trailer returns the closing line, once Next has returned io.EOF.
func (r *Reader) Trailer() (Trailer, bool) {
	if r.trailer == nil {
		return Trailer{}, false
	}
	return *r.trailer, true
}

// errLine says that a line is not JSON.
var errLine = errors.New("line is not valid")

func (r *Reader) next() (line, error) {
	if !r.s.Scan() {
		if err := r.s.Err(); err != nil {
			return line{}, fmt.Errorf("read record: line %d: %w", r.n+1, err)
		}
		return line{}, io.EOF
	}
	r.n++
	var l line
	if err := json.Unmarshal(r.s.Bytes(), &l); err != nil {
		return line{}, fmt.Errorf("read record: line %d: %w: %w", r.n, errLine, err)
	}
	return l, nil
}

// last says whether no further line follows.
func (r *Reader) last() bool { return !r.s.Scan() }

// Collector adds intervals up to one Observation.
type Collector struct {
	o      Observation
	counts map[Key]int
	// MaxSamples bounds Samples; further ones are only counted.
	MaxSamples int
}

// NewCollector starts an observation.
func NewCollector(h Header) *Collector {
	return &Collector{
		o: Observation{
			SchemaVersion: SchemaVersion,
			Host:          h.Host, Kernel: h.Kernel,
			Window:  Window{Start: h.Start, End: h.Start},
			Sources: h.Sources, Blind: h.Blind,
		},
		counts:     map[Key]int{},
		MaxSamples: 10_000,
	}
}

// Add adds one interval.
func (c *Collector) Add(iv Interval) {
	for _, n := range iv.Counts {
		i, ok := c.counts[n.Key]
		if !ok {
			i = len(c.o.Counts)
			c.counts[n.Key] = i
			c.o.Counts = append(c.o.Counts, Count{Key: n.Key})
		}
		c.o.Counts[i].Drops += n.Drops
		c.o.Counts[i].Bytes += n.Bytes
	}
	room := max(0, c.MaxSamples-len(c.o.Samples))
	c.o.Samples = append(c.o.Samples, iv.Samples[:min(room, len(iv.Samples))]...)
	c.o.Accounting.Add(iv.Accounting)
	if iv.Window.End.After(c.o.Window.End) {
		c.o.Window.End = iv.Window.End
	}
	c.o.Window.Duration = c.o.Window.End.Sub(c.o.Window.Start)
}

// Finish returns the observation. The trailer's sources and blind spots
// replace those of the header.
func (c *Collector) Finish(t Trailer) Observation {
	if !t.End.IsZero() {
		c.o.Window.End = t.End
		c.o.Window.Duration = t.End.Sub(c.o.Window.Start)
	}
	if t.Sources != nil {
		c.o.Sources = t.Sources
	}
	if t.Blind != nil {
		c.o.Blind = t.Blind
	}
	c.o.Counters, c.o.CountersWindow, c.o.Facts = t.Counters, t.CountersWindow, t.Facts
	return c.o
}
