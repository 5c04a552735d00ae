package netlinkpcap

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// familyName is the drop monitor's (net/core/drop_monitor.c).
const familyName = "NET_DM"

// Of include/uapi/linux/net_dropmon.h, what the codec of alerts does not name.
const (
	attrStats        = 12
	attrHWStats      = 13
	attrStatsDropped = 0
	familyVersion    = 2
)

const headersLen = unix.NLMSG_HDRLEN + unix.GENL_HDRLEN

// Family returns the number that generic netlink has given to the drop monitor,
// if this message is the answer that says so. The number is another one after
// each boot.
func Family(message []byte) (uint16, bool) {
	if len(message) < headersLen || binary.NativeEndian.Uint16(message[4:]) != unix.GENL_ID_CTRL ||
		message[unix.NLMSG_HDRLEN] != unix.CTRL_CMD_NEWFAMILY {
		return 0, false
	}
	ad, err := netlink.NewAttributeDecoder(message[headersLen:])
	if err != nil {
		return 0, false
	}
	var id uint16
	var name string
	for ad.Next() {
		switch ad.Type() {
		case unix.CTRL_ATTR_FAMILY_ID:
			if len(ad.Bytes()) == 2 {
				id = ad.Uint16()
			}
		case unix.CTRL_ATTR_FAMILY_NAME:
			name = ad.String()
		}
	}
	return id, ad.Err() == nil && name == familyName && id > unix.GENL_ID_CTRL
}

// Overrun is the message by which netlink says that messages were lost here,
// because the socket's buffer was full (NLMSG_OVERRUN of
// include/uapi/linux/netlink.h), with their number behind the header. The kernel
// never sends it: it fails the next read instead.
func Overrun(lost uint32) []byte {
	return binary.NativeEndian.AppendUint32(header(unix.NLMSG_OVERRUN, unix.NLMSG_HDRLEN+4), lost)
}

// readOverrun is the opposite. Without a number one message is known to be lost.
func readOverrun(message []byte) uint64 {
	if len(message) < unix.NLMSG_HDRLEN+4 {
		return 1
	}
	return uint64(binary.NativeEndian.Uint32(message[unix.NLMSG_HDRLEN:]))
}

// Stats is the answer of the drop monitor with these counts, as the kernel
// forms it, for the family of this number.
func Stats(family uint16, s dropmon.Stats) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	for _, t := range []struct {
		attr uint16
		tail dropmon.Tail
	}{{attrStats, s.Software}, {attrHWStats, s.Hardware}} {
		if t.tail.Known {
			ae.Nested(t.attr, func(in *netlink.AttributeEncoder) error {
				in.Uint64(attrStatsDropped, t.tail.Dropped)
				return nil
			})
		}
	}
	attrs, err := ae.Encode()
	if err != nil {
		return nil, fmt.Errorf("form statistics of the drop monitor: %w", err)
	}
	b := append(header(family, headersLen+len(attrs)), dropmon.CommandStatsNew, familyVersion, 0, 0)
	return append(b, attrs...), nil
}

// header is the header of a message of n bytes.
func header(kind uint16, n int) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, n)
	binary.NativeEndian.PutUint32(b, uint32(n))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return b
}

// readStats is the opposite of Stats; attrs is what follows the headers.
func readStats(attrs []byte) (s dropmon.Stats, ok bool) {
	ad, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return s, false
	}
	for ad.Next() {
		var tail *dropmon.Tail
		switch ad.Type() {
		case attrStats:
			tail = &s.Software
		case attrHWStats:
			tail = &s.Hardware
		default:
			continue
		}
		ad.Nested(func(in *netlink.AttributeDecoder) error {
			for in.Next() {
				if in.Type() == attrStatsDropped && len(in.Bytes()) == 8 {
					*tail = dropmon.Tail{Dropped: in.Uint64(), Known: true}
				}
			}
			return nil
		})
	}
	return s, ad.Err() == nil && (s.Software.Known || s.Hardware.Known)
}
