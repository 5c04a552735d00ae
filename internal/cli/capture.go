package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/netlinkpcap"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// How often a capture is written out and losses are looked for, and how long it
// listens on at its end for alerts that wait in the socket.
const (
	captureTick  = 200 * time.Millisecond
	captureDrain = 50 * time.Millisecond
)

// familyRecord is how many bytes of the list of families go into a record. All
// of it fits into one or two.
const familyRecord = 32 << 10

// capture writes what a connection to the drop monitor gives into a pcap file.
type capture struct {
	conn *dropmon.Conn
	out  *bufio.Writer
	pcap *netlinkpcap.Writer
	// family is the number of the monitor's family.
	family uint16
	// count ends the capture after so many alerts; 0 does not.
	count int
	// stats are those of the beginning, if the kernel tells them.
	stats *dropmon.Stats

	// alerts is how many were written, lost how many found the socket full, tail
	// how many packets the kernel's own queue.
	alerts, lost, tail uint64
}

// newCapture writes what a file begins with: the list of families, from which
// Wireshark learns which number the monitor has, and the monitor's statistics.
func newCapture(conn *dropmon.Conn, w io.Writer, begin time.Time) (*capture, error) {
	c := &capture{conn: conn, out: bufio.NewWriter(w)}
	families, err := conn.FamilyDump()
	if err != nil {
		return nil, err
	}
	if c.pcap, err = netlinkpcap.NewWriter(c.out); err != nil {
		return nil, err
	}
	var rec []byte
	for i, m := range families {
		if id, ok := netlinkpcap.Family(m); ok {
			c.family = id
		}
		rec = append(rec, m...)
		for len(rec)%unix.NLMSG_ALIGNTO != 0 {
			rec = append(rec, 0)
		}
		if len(rec) < familyRecord && i < len(families)-1 {
			continue
		}
		if err := c.pcap.Write(begin, rec); err != nil {
			return nil, err
		}
		rec = rec[:0]
	}
	if s, err := conn.Stats(); err == nil {
		c.stats = &s
		if err := c.writeStats(s, begin); err != nil {
			return nil, err
		}
	}
	return c, c.out.Flush()
}

// writeStats writes an answer of the monitor.
func (c *capture) writeStats(s dropmon.Stats, at time.Time) error {
	b, err := netlinkpcap.Stats(c.family, s)
	if err != nil {
		return err
	}
	return c.pcap.Write(at, b)
}

// run captures until ctx is done, the duration is over (0 never is) or there is
// enough.
func (c *capture) run(ctx context.Context, duration time.Duration) error {
	var end time.Time
	if duration > 0 {
		end = time.Now().Add(duration)
	}
	for ctx.Err() == nil {
		next := time.Now().Add(captureTick)
		if !end.IsZero() && end.Before(next) {
			next = end
		}
		err := c.until(next)
		if errors.Is(err, errEnough) {
			return c.finish()
		}
		if err != nil {
			return err
		}
		if !end.IsZero() && !time.Now().Before(end) {
			break
		}
	}
	if err := c.until(time.Now().Add(captureDrain)); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return c.finish()
}

// until writes what arrives before a time, and notes what was lost.
func (c *capture) until(t time.Time) error {
	if err := c.conn.SetReadDeadline(t); err != nil {
		return fmt.Errorf("listen to drop monitor: %w", err)
	}
	err := c.conn.ReceiveRaw(c.message)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	if n := c.conn.Lost(); n > c.lost {
		err = errors.Join(err, c.pcap.Write(time.Now(), netlinkpcap.Overrun(uint32(min(n-c.lost, math.MaxUint32)))))
		c.lost = n
	}
	return errors.Join(err, c.out.Flush())
}

// message writes one message of the monitor, at the time of the drop where it
// tells one.
func (c *capture) message(b []byte) error {
	at := time.Now()
	if a, err := dropmon.Decode(b[unix.NLMSG_HDRLEN:]); err == nil && a.Packet != nil && !a.Packet.Time.IsZero() {
		at = a.Packet.Time
	}
	if err := c.pcap.Write(at, b); err != nil {
		return err
	}
	if c.alerts++; c.count > 0 && c.alerts >= uint64(c.count) {
		return errEnough
	}
	return nil
}

// finish writes the statistics of the end, from which a reader learns when that
// was and what the kernel's queue had no room for.
func (c *capture) finish() error {
	if c.stats != nil {
		s, err := c.conn.Stats()
		if err != nil {
			return err
		}
		c.tail = netlinkpcap.TailDropped(*c.stats, s)
		if err := c.writeStats(s, time.Now()); err != nil {
			return err
		}
	}
	return c.out.Flush()
}
