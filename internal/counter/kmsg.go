package counter

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

const kmsgPath = "/dev/kmsg"

// maxKmsgLines bounds one read of the log: more than a ring of 1 MiB has, and
// less than a tenth of a second.
const maxKmsgLines = 1 << 16

// kmsg counts the lines of the kernel's log that announce loss. What a line
// says is hostile in part (names of devices and programs), so nothing of it is
// kept.
type kmsg struct {
	path string
	// receive reads the next line; nil where the log is not open.
	receive func([]byte) (int, error)
	fd      int
	buf     []byte
	kmsgCounts
}

func newKmsg(path string) *kmsg { return &kmsg{path: path} }

// kmsgCounts is what the lines up to one of them said.
type kmsgCounts struct {
	// next is the sequence number of the line that comes next, if begun.
	next  uint64
	begun bool
	// lines has as many as announcements.
	lines [len(announcements)]uint64
	// suppressed is the number of messages that net_ratelimit kept out.
	suppressed uint64
	// overwritten lines could not be read; late are those of them that were
	// still there at the first read.
	overwritten, late uint64
}

// readInto adds what the log says. A line counts once, however often it is
// called until close.
func (k *kmsg) readInto(s *Snapshot) {
	late := k.late
	err := k.read()
	if errors.Is(err, fs.ErrNotExist) && !hasLog() {
		return
	}
	if err != nil {
		s.miss(k.path, err)
	}
	if n := k.late - late; n > 0 {
		s.miss(k.path, fmt.Errorf("%d lines were overwritten before they could be read", n))
	}
	if k.begun {
		s.Values = append(s.Values, k.values(k.path)...)
	}
}

// hasLog says whether the kernel has a log at all. Where it does and /dev/kmsg
// is not there, somebody left it out, as containers do (kernel/printk/sysctl.c
// is built with CONFIG_PRINTK alone).
func hasLog() bool {
	_, err := os.Stat("/proc/sys/kernel/printk")
	return err == nil
}

func (k *kmsg) close() {
	if k.receive != nil {
		unix.Close(k.fd)
		k.receive = nil
	}
	k.kmsgCounts = kmsgCounts{}
}

func (k *kmsg) open() error {
	fd, err := unix.Open(k.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return needsSyslog(&fs.PathError{Op: "open", Path: k.path, Err: err})
	}
	k.fd = fd
	k.receive = func(b []byte) (int, error) { return unix.Read(fd, b) }
	return nil
}

// read reads what has come since the last time, without waiting for more.
func (k *kmsg) read() error {
	if k.receive == nil {
		if err := k.open(); err != nil {
			return err
		}
	}
	if k.buf == nil {
		// A line with what belongs to it has at most 8 KiB (kernel/printk/
		// internal.h, PRINTK_MESSAGE_MAX; before 6.3 CONSOLE_EXT_LOG_MAX).
		k.buf = make([]byte, 16<<10)
	}
	for range maxKmsgLines {
		n, err := k.receive(k.buf)
		switch {
		case err == unix.EAGAIN, err == nil && n <= 0:
			k.begun = true
			return nil
		case err == unix.EPIPE, err == unix.EINTR:
			// The line was overwritten; the number of the next one says how
			// many were.
		case err == unix.EINVAL:
			return fmt.Errorf("read %s: %w (it can be read since Linux 3.5)", k.path, err)
		case err != nil:
			return needsSyslog(fmt.Errorf("read %s: %w", k.path, err))
		default:
			if err := k.line(k.buf[:n]); err != nil {
				return fmt.Errorf("parse %s: %w", k.path, err)
			}
		}
	}
	k.begun = true
	return fmt.Errorf("it has more than %d new lines; the rest is left for the next read", maxKmsgLines)
}

// needsSyslog adds what an error of permissions means (kernel/printk/printk.c,
// check_syslog_permissions).
func needsSyslog(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (needs CAP_SYSLOG where kernel.dmesg_restrict is 1)", err)
	}
	return err
}

// line counts a line: "PRIORITY,SEQUENCE,TIME,FLAGS;TEXT\n" and what may follow
// (Documentation/ABI/testing/dev-kmsg).
func (c *kmsgCounts) line(b []byte) error {
	head, text, ok := bytes.Cut(b, []byte{';'})
	priority, rest, ok1 := leadingNumber(head)
	if !ok || !ok1 || len(rest) == 0 || rest[0] != ',' {
		return fmt.Errorf("line %q has no priority", clip(b))
	}
	sequence, rest, ok := leadingNumber(rest[1:])
	if !ok || len(rest) == 0 || rest[0] != ',' || sequence == math.MaxUint64 {
		return fmt.Errorf("line %q has no number", clip(b))
	}
	if sequence < c.next {
		return fmt.Errorf("line %d came behind line %d", sequence, c.next-1)
	}
	gap := sequence - c.next
	c.overwritten += gap
	if c.begun {
		c.late += gap
	}
	c.next = sequence + 1
	// The other facilities are of programs that write to the log, which cannot
	// have that of the kernel (kernel/printk/printk.c, devkmsg_write).
	if priority>>3 == 0 {
		text, _, _ = bytes.Cut(text, []byte{'\n'})
		c.count(text)
	}
	return nil
}

// count counts the text of a line of the kernel.
func (c *kmsgCounts) count(text []byte) {
	if isPacketLog(text) {
		return
	}
	for i := range announcements {
		if announcements[i].matches(text) {
			c.lines[i]++
			return
		}
	}
	c.suppressed += suppressed(text)
}

// values are the counters, all of them, also where no line was found.
func (c *kmsgCounts) values(source string) []Value {
	values := make([]Value, 0, len(announcements)+2)
	for i, a := range announcements {
		values = append(values, Value{
			Name: "kmsg." + a.name, Value: c.lines[i], Source: source, Command: "dmesg | grep " + a.grep(),
		})
	}
	return append(values,
		Value{
			Name: "kmsg.net_ratelimit_suppressed", Value: c.suppressed, Source: source,
			Command: "dmesg | grep 'net_ratelimit: .* callbacks suppressed'",
		},
		Value{Name: "kmsg.overwritten", Value: c.overwritten, Source: source, Command: "head -n 1 " + source},
	)
}
