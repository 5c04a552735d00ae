package netlinkpcap

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// The classes of error of a file.
var (
	// ErrNotNetlink says that a file is no capture of netlink messages.
	ErrNotNetlink = errors.New("not a capture of netlink messages")
	// ErrByteOrder says that a file was made on a host whose byte order is not
	// this one's.
	ErrByteOrder = errors.New("netlink messages of a host with the other byte order")
	// ErrTruncated says that a file ends inside a record: the program that
	// wrote it was stopped, or the disk was full.
	ErrTruncated = errors.New("capture ends early")
)

// maxBetween bounds what is read from one record to the next, in bytes. A
// pcapng file may hold blocks without packets, which the reader would collect.
const maxBetween = 16 << 20

// maxNames bounds what a pcapng file makes its reader remember.
const maxNames = 1 << 10

// message is one generic netlink message of a file.
type message struct {
	// time is that of the record, from 1970 to 2106.
	time time.Time
	// kind is the message's type: the number of a family, or a control message.
	kind uint16
	// data is the whole message, header included; valid until the next one.
	data []byte
}

// messages reads the generic netlink messages of a file one by one.
type messages struct {
	next  func() ([]byte, gopacket.CaptureInfo, error)
	check func() error
	in    *budget
	rest  []byte
	time  time.Time
	// broken counts records and messages that are cut or no netlink.
	broken uint64
}

// budget is a reader that ends with an error when too much was read through it.
type budget struct {
	r    io.Reader
	left int
}

var errBudget = fmt.Errorf("%d MiB without a packet", maxBetween>>20)

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errBudget
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// The first bytes of what may hold netlink messages, in the order of the file.
var (
	magicNG   = []byte{0x0a, 0x0d, 0x0d, 0x0a}
	magicGzip = []byte{0x1f, 0x8b}
	magics    = [][]byte{
		{0xd4, 0xc3, 0xb2, 0xa1}, {0xa1, 0xb2, 0xc3, 0xd4}, // microseconds
		{0x4d, 0x3c, 0xb2, 0xa1}, {0xa1, 0xb2, 0x3c, 0x4d}, // nanoseconds
		magicNG,
	}
)

// Is says whether a file that begins with these bytes (4 suffice) is a capture,
// of whatever.
func Is(begin []byte) bool {
	for _, m := range magics {
		if bytes.HasPrefix(begin, m) {
			return true
		}
	}
	return false
}

// Plain returns a reader of the same bytes, unpacked where they are gzip.
func Plain(r io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReader(r)
	begin, err := b.Peek(len(magicGzip))
	if err != nil || !bytes.Equal(begin, magicGzip) {
		// An error comes again with the next read.
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("unpack gzip: %w", err)
	}
	return bufio.NewReader(z), nil
}

// openMessages reads the header of a file, pcap or pcapng.
func openMessages(r *bufio.Reader) (*messages, error) {
	begin, err := r.Peek(len(magicNG))
	if err != nil || !Is(begin) {
		return nil, fmt.Errorf("read capture: %w", ErrNotNetlink)
	}
	m := &messages{in: &budget{r: r, left: maxBetween}, check: func() error { return nil }}
	if bytes.Equal(begin, magicNG) {
		err = m.openNG()
	} else {
		err = m.openPcap()
	}
	if err != nil {
		return nil, fmt.Errorf("read capture: %w", err)
	}
	return m, nil
}

func (m *messages) openPcap() error {
	p, err := pcapgo.NewReader(m.in)
	if err != nil {
		return ended(err)
	}
	if !cooked(p.LinkType()) {
		return wrongLink(p.LinkType())
	}
	// The file's own limit may be anything; less than this one it cannot be.
	p.SetSnaplen(maxRecord)
	m.next = p.ZeroCopyReadPacketData
	return nil
}

func (m *messages) openNG() error {
	p, err := pcapgo.NewNgReader(m.in, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return ended(err)
	}
	// A file may hold several captures; only those of netlink count.
	var others layers.LinkType
	seen := false
	m.next = func() ([]byte, gopacket.CaptureInfo, error) {
		for {
			data, ci, err := p.ZeroCopyReadPacketData()
			if errors.Is(err, io.EOF) && !seen && others != 0 {
				return nil, ci, wrongLink(others)
			}
			if err != nil {
				return nil, ci, err
			}
			if i, err := p.Interface(ci.InterfaceIndex); err != nil || !cooked(i.LinkType) {
				others = i.LinkType
				m.in.left = maxBetween
				continue
			}
			seen = true
			return data, ci, nil
		}
	}
	m.check = func() error {
		if p.NNames() > maxNames || p.NInterfaces() > maxNames {
			return errors.New("more names or interfaces than a capture has")
		}
		return nil
	}
	return nil
}

// cooked says whether records of this type begin with the cooked header: that
// of netlink, or of any device, among them nlmon's.
func cooked(l layers.LinkType) bool { return l == linkNetlink || l == layers.LinkTypeLinuxSLL }

func wrongLink(l layers.LinkType) error {
	return fmt.Errorf("link type %d, want %d (netlink): %w", uint16(l), uint16(linkNetlink), ErrNotNetlink)
}

// ended makes one error of the ways in which a file ends too early.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}

// read returns the next generic netlink message: io.EOF at the end of the file,
// ErrTruncated where that is inside a record.
func (m *messages) read() (message, error) {
	for {
		if len(m.rest) > 0 {
			msg, ok, err := m.split()
			if err != nil || ok {
				return msg, err
			}
			continue
		}
		m.in.left = maxBetween
		data, ci, err := m.next()
		if err == nil {
			err = m.check()
		}
		switch {
		case errors.Is(err, io.EOF) && ci.CaptureLength == 0:
			return message{}, io.EOF
		case err != nil:
			return message{}, fmt.Errorf("read capture: %w", ended(err))
		}
		m.record(data, ci)
	}
}

// record takes a record apart from its cooked header. Netlink of other
// protocols than the generic one, which nlmon captures too, is left out.
func (m *messages) record(data []byte, ci gopacket.CaptureInfo) {
	m.rest, m.time = nil, clampTime(ci.Timestamp).Local()
	if len(data) < cookedLen {
		m.broken++
		return
	}
	if binary.BigEndian.Uint16(data[cookedHardware:]) == unix.ARPHRD_NETLINK &&
		binary.BigEndian.Uint16(data[cookedProtocol:]) == unix.NETLINK_GENERIC {
		m.rest = data[cookedLen:]
	}
}

// split takes the first message off the rest of a record. It is false where
// there is none: the rest is padding, or cut.
func (m *messages) split() (message, bool, error) {
	b := m.rest
	m.rest = nil
	if len(b) < unix.NLMSG_HDRLEN {
		m.broken++
		return message{}, false, nil
	}
	n := binary.NativeEndian.Uint32(b)
	if n < unix.NLMSG_HDRLEN || uint64(n) > uint64(len(b)) {
		if other := bits.ReverseBytes32(n); n > maxRecord && other >= unix.NLMSG_HDRLEN && other <= maxRecord {
			return message{}, false, ErrByteOrder
		}
		// A list of families is cut where dwdump was told to cut packets.
		if binary.NativeEndian.Uint16(b[4:]) != unix.GENL_ID_CTRL {
			m.broken++
		}
		return message{}, false, nil
	}
	next := (int(n) + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
	if next < len(b) {
		m.rest = b[next:]
	}
	return message{time: m.time, kind: binary.NativeEndian.Uint16(b[4:]), data: b[:n]}, true, nil
}
