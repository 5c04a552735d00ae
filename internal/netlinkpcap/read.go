package netlinkpcap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// interval is the time between two records of a file that is read.
const interval = time.Second

// What a reader keeps at most, whatever a file holds.
const (
	// maxSamples bounds the samples of an interval.
	maxSamples = 4096
	// maxKeys bounds the kinds of drops of a file.
	maxKeys = 50_000
)

// Reader reads a file of the drop monitor's messages as if it were a record:
// intervals of a second by the time of the drops. Packets that were dropped
// are its samples, their number by place and reason its counts.
type Reader struct {
	in      *messages
	header  record.Header
	trailer *record.Trailer
	early   error // what it ended with, before any alert
	end     error // what it ended with, once that was handed on
	convert converter
	family  uint16
	// guessed says that nothing in the file names the family.
	guessed bool

	// at is where the interval begins, last the latest time seen.
	at, last time.Time
	// ahead is an alert of the next interval, or the first one.
	ahead *timed
	keys  map[record.Key]bool
	books books
}

// timed is an alert and when it happened.
type timed struct {
	alert dropmon.Alert
	time  time.Time
}

// NewReader reads the beginning of a file, up to its first alert. It returns
// ErrNotNetlink for a capture of anything else, ErrTruncated for one without a
// message, and ErrByteOrder.
func NewReader(r *bufio.Reader) (*Reader, error) {
	in, err := openMessages(r)
	if err != nil {
		return nil, err
	}
	rd := &Reader{in: in, keys: map[record.Key]bool{}}
	first, err := in.read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read capture: no message: %w", ErrTruncated)
	case err != nil:
		return nil, err
	}
	rd.at, rd.last = first.time, first.time
	if err := rd.begin(first); err != nil {
		rd.early = err
	}
	rd.header = record.Header{
		Start: rd.at, Sources: rd.books.sources(true, rd.guessed), Blind: rd.books.blind(),
		Kernel: record.Kernel{ReasonsFrom: rd.reasonsFrom()},
	}
	return rd, nil
}

// skew is how much older than the first record a first drop is believed to be:
// dwdump starts the monitor before it writes, and notes when it wrote.
const skew = time.Minute

// begin looks for the first alert, which tells the monitor's mode.
func (r *Reader) begin(first message) error {
	a, ok := r.take(first)
	if !ok {
		var err error
		if a, err = r.alert(); err != nil {
			return err
		}
	}
	if d := r.at.Sub(a.time); d > 0 && d < skew {
		r.at = a.time
	}
	r.books.summaries = a.alert.Packet == nil
	r.ahead = &a
	return nil
}

// reasonsFrom is where the names of reasons come from: each alert has that of its
// drop, where the kernel has any, but summaries have none.
func (r *Reader) reasonsFrom() string {
	if r.books.summaries {
		return "none"
	}
	return Source
}

// Header says what is known from the start: of the host, nothing.
func (r *Reader) Header() record.Header { return r.header }

// Trailer says what was learned by the end, once Next has returned io.EOF.
func (r *Reader) Trailer() (record.Trailer, bool) {
	if r.trailer == nil {
		return record.Trailer{}, false
	}
	return *r.trailer, true
}

// Next returns the next interval: io.EOF at the end, an error that is
// record.ErrTruncated where the file ends inside of a message.
func (r *Reader) Next() (record.Interval, error) {
	if r.end != nil {
		return record.Interval{}, r.finish()
	}
	iv := record.Interval{Counts: []record.Count{}, Samples: []record.Drop{}}
	places := map[record.Key]int{}
	for {
		a, err := r.alert()
		if err != nil {
			r.end = err
			return r.close(iv, r.last), nil
		}
		if n := a.time.Sub(r.at) / interval; n > 0 {
			r.ahead = &a
			return r.close(iv, r.at.Add(n*interval)), nil
		}
		r.add(&iv, places, a)
	}
}

// finish is the error of a file that has been read.
func (r *Reader) finish() error {
	r.trailer = &record.Trailer{End: r.at, Sources: r.books.sources(r.family != 0, r.guessed), Blind: r.books.blind()}
	if errors.Is(r.end, ErrTruncated) {
		return fmt.Errorf("%w: %w", record.ErrTruncated, r.end)
	}
	return r.end
}

// close ends an interval; the next one begins where it ends.
func (r *Reader) close(iv record.Interval, end time.Time) record.Interval {
	end = later(r.at, end)
	iv.Window = record.Window{Start: r.at, End: end, Duration: end.Sub(r.at)}
	r.at = end
	a := &iv.Accounting
	a.DecodeErrors += r.in.broken - r.books.broken
	r.books.broken = r.in.broken
	r.books.settle(a)
	a.DropsSeen = a.DropsAggregated + a.MapFull + a.DropsLost
	return iv
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// alert returns the next alert of the file.
func (r *Reader) alert() (timed, error) {
	if a := r.ahead; a != nil {
		r.ahead = nil
		return *a, nil
	}
	if r.early != nil {
		return timed{}, r.early
	}
	for {
		m, err := r.in.read()
		if err != nil {
			return timed{}, err
		}
		if a, ok := r.take(m); ok {
			return a, nil
		}
	}
}

// take reads a message. It is false for one that is no alert, or none that can
// be read.
func (r *Reader) take(m message) (timed, bool) {
	r.last = later(r.last, m.time)
	switch {
	case m.kind == unix.NLMSG_OVERRUN:
		r.books.overrun(readOverrun(m.data))
		return timed{}, false
	case m.kind == unix.GENL_ID_CTRL:
		if id, ok := Family(m.data); ok {
			r.family, r.guessed = id, false
		}
		return timed{}, false
	case len(m.data) < headersLen || r.family != m.kind && !r.guess(m):
		return timed{}, false
	}
	switch m.data[unix.NLMSG_HDRLEN] {
	case dropmon.CommandAlert, dropmon.CommandPacketAlert:
	case dropmon.CommandStatsNew:
		r.books.addStats(m.data[headersLen:])
		return timed{}, false
	default:
		return timed{}, false // another answer
	}
	a, err := dropmon.Decode(m.data[unix.NLMSG_HDRLEN:])
	if err != nil {
		r.in.broken++
		return timed{}, false
	}
	t := timed{alert: a, time: m.time}
	if a.Packet == nil || a.Packet.Time.IsZero() {
		return t, true
	}
	// One from the future would move the window there for good.
	if t.time = clampTime(a.Packet.Time); t.time.Sub(m.time) > skew {
		t.time, a.Packet.Time = m.time, m.time
		r.books.ahead++
	}
	return t, true
}

// guess says whether a message of a family that nothing has named is a packet
// alert, and remembers the family then. dwdump writes only the first part of
// what the kernel says about its families, which may not tell of this one.
func (r *Reader) guess(m message) bool {
	if r.family != 0 || m.kind <= unix.GENL_ID_CTRL {
		return false
	}
	a, err := dropmon.Decode(m.data[unix.NLMSG_HDRLEN:])
	if err != nil || a.Packet == nil || a.Skipped > 0 || a.Packet.Time.IsZero() {
		return false
	}
	r.family, r.guessed = m.kind, true
	return true
}

// add counts an alert in an interval.
func (r *Reader) add(iv *record.Interval, places map[record.Key]int, a timed) {
	count := func(k record.Key, drops, bytes uint64) {
		i, ok := places[k]
		if !ok {
			if !r.keys[k] && len(r.keys) >= maxKeys {
				iv.Accounting.MapFull += drops
				return
			}
			r.keys[k] = true
			i = len(iv.Counts)
			places[k] = i
			iv.Counts = append(iv.Counts, record.Count{Key: k})
		}
		iv.Accounting.DropsAggregated += drops
		iv.Counts[i].Drops += drops
		iv.Counts[i].Bytes += bytes
	}
	for _, p := range a.alert.Points {
		count(record.Key{Location: dropmon.Location(p.PC, ""), Direction: record.DirectionUnknown}, uint64(p.Drops), 0)
	}
	for _, t := range a.alert.Traps {
		if len(t.Name) > maxText {
			iv.Accounting.DecodeErrors++
			continue
		}
		count(record.Key{Reason: trapReason(t.Name, ""), Direction: record.DirectionRX}, uint64(t.Drops), 0)
	}
	if a.alert.Packet == nil {
		r.books.summaries = true
		return
	}
	d, ok := r.convert.drop(a.alert.Packet, a.time)
	if !ok {
		iv.Accounting.DecodeErrors++
		return
	}
	r.books.packet(a.alert.Packet)
	count(d.Key, 1, uint64(d.Length))
	if len(iv.Samples) >= maxSamples {
		r.books.crowded++ // counted, all the same
		return
	}
	iv.Accounting.Samples++
	iv.Samples = append(iv.Samples, d)
}
