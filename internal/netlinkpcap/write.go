package netlinkpcap

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// linkNetlink is LINKTYPE_NETLINK (https://www.tcpdump.org/linktypes.html):
// netlink messages behind the cooked header that nlmon's captures have.
const linkNetlink layers.LinkType = 253

// The cooked header of 16 bytes in front of netlink messages, in network byte
// order: packet type, hardware type, length of an address and 8 bytes for it,
// netlink protocol.
const (
	cookedLen      = 16
	cookedHardware = 2
	cookedProtocol = 14
)

// maxRecord is the largest record, cooked header included. It is what
// Wireshark and libpcap take (MAXIMUM_SNAPLEN); a drop alert has 64 kB at most
// besides its attributes.
const maxRecord = 262144

// Writer writes a file of generic netlink messages.
type Writer struct {
	pcap *pcapgo.Writer
	buf  []byte
}

// NewWriter writes the header of a file. Times have nanoseconds, as the
// kernel's have.
func NewWriter(w io.Writer) (*Writer, error) {
	p := pcapgo.NewWriterNanos(w)
	if err := p.WriteFileHeader(maxRecord, linkNetlink); err != nil {
		return nil, fmt.Errorf("write pcap header: %w", err)
	}
	cooked := make([]byte, cookedLen, 1<<12)
	binary.BigEndian.PutUint16(cooked, unix.PACKET_OUTGOING)
	binary.BigEndian.PutUint16(cooked[cookedHardware:], unix.ARPHRD_NETLINK)
	binary.BigEndian.PutUint16(cooked[cookedProtocol:], unix.NETLINK_GENERIC)
	return &Writer{pcap: p, buf: cooked}, nil
}

// Write writes one record: messages as they came from the kernel, headers
// included, at a time. What is longer than a record may be is cut, which the
// record says. A time that pcap cannot express, before 1970 or after 2106, is
// written as the nearest one.
func (w *Writer) Write(t time.Time, messages []byte) error {
	w.buf = append(w.buf[:cookedLen], messages...)
	data := w.buf[:min(len(w.buf), maxRecord)]
	ci := gopacket.CaptureInfo{Timestamp: clampTime(t), CaptureLength: len(data), Length: len(w.buf)}
	if err := w.pcap.WritePacket(ci, data); err != nil {
		return fmt.Errorf("write pcap record: %w", err)
	}
	return nil
}

// clampTime is the nearest time that 32 bits of seconds express.
func clampTime(t time.Time) time.Time {
	if s := t.Unix(); s < 0 {
		return time.Unix(0, 0)
	} else if s > 1<<32-1 {
		return time.Unix(1<<32-1, 0)
	}
	return t
}
