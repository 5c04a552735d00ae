package fact

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// procSockets reads /proc/net/tcp and tcp6, or udp and udp6.
func (r *Reader) procSockets(file string, each func(*socket)) error {
	return r.procLines([]string{file, file + "6"}, func(line []byte) error {
		s, err := parseProcSocket(string(line))
		if err == nil {
			each(&s)
		}
		return err
	})
}

// procLines hands the lines of lists of sockets to each, without the headings.
// A kernel without IPv6 has the first list alone.
func (r *Reader) procLines(files []string, each func(line []byte) error) error {
	end := time.Now().Add(maxListing)
	for i, name := range files {
		err := kernelnet.ReadList(r.path("/proc/thread-self/net"), name, end, func(list io.Reader) error { return eachLine(list, each) })
		if err != nil && (i == 0 || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

func eachLine(r io.Reader, each func(line []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// parseProcSockets reads the table that tcp4_seq_show (net/ipv4/tcp_ipv4.c)
// and udp4_seq_show (net/ipv4/udp.c) print, and those of IPv6. Columns: number,
// local and remote address, state, tx_queue:rx_queue, timer, retransmissions,
// uid, timeout, inode, and with UDP references, pointer, drops.
func parseProcSockets(r io.Reader, each func(*socket)) error {
	return eachLine(r, func(line []byte) error {
		s, err := parseProcSocket(string(line))
		if err == nil {
			each(&s)
		}
		return err
	})
}

func parseProcSocket(line string) (s socket, err error) {
	word := strings.Fields(line)
	if len(word) < 10 {
		return s, fmt.Errorf("line %q: %d columns", line, len(word))
	}
	num := func(word string, base, bits int) uint32 {
		v, nerr := strconv.ParseUint(word, base, bits)
		if nerr != nil && err == nil {
			err = fmt.Errorf("line %q: %w", line, nerr)
		}
		return uint32(v)
	}
	end := func(word string) netip.AddrPort {
		addr, port, _ := strings.Cut(word, ":")
		a, aerr := parseProcAddr(addr)
		if aerr != nil && err == nil {
			err = fmt.Errorf("line %q: %w", line, aerr)
		}
		return netip.AddrPortFrom(a, uint16(num(port, 16, 16)))
	}
	send, recv, _ := strings.Cut(word[4], ":")
	s = socket{
		local: end(word[1]), peer: end(word[2]),
		state: uint8(num(word[3], 16, 8)),
		sendQ: num(send, 16, 32), recvQ: num(recv, 16, 32),
		uid: num(word[7], 10, 32), inode: num(word[9], 10, 32),
	}
	if len(word) == 13 { // more is TCP
		s.hasDrops = true
		var derr error
		s.drops, derr = kernelnet.ParseDrops([]byte(word[12]))
		err = cmp.Or(err, derr)
	}
	return s, err
}

// parseProcAddr reads an address, which is printed as one or four numbers of
// the machine's byte order (%08X).
func parseProcAddr(s string) (netip.Addr, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(b)%4 != 0 {
		return netip.Addr{}, kernelnet.ErrShort
	}
	out := make([]byte, 0, len(b))
	for ; len(b) > 0; b = b[4:] {
		out = native.AppendUint32(out, binary.BigEndian.Uint32(b))
	}
	a, ok := netip.AddrFromSlice(out)
	if !ok {
		return a, fmt.Errorf("address of %d bytes", len(out))
	}
	return a, nil
}

func briefLine(line []byte) (listed, error) {
	s, err := parseProcSocket(string(line))
	return listed{inode: s.inode, waiting: uint64(s.recvQ) + uint64(s.sendQ), drops: s.drops}, err
}

func lineDetail(line []byte) (name string, f fields, err error) {
	s, err := parseProcSocket(string(line))
	f = s.fields()
	s.putEnds(f)
	if s.state != tcpListen { // whose backlog is not told
		f["send_q"] = decimal(s.sendQ)
	}
	if s.hasDrops {
		f["drops"] = decimal(s.drops)
	}
	return s.name(), f, err
}

// procWords reads the columns of a line that are numbers: at says which, by the
// names of the fields and with the base.
func procWords(line []byte, least int, at map[string][2]int) ([]string, fields, error) {
	word := strings.Fields(string(line))
	if len(word) < least {
		return nil, nil, fmt.Errorf("line %q: %d columns", line, len(word))
	}
	f := fields{}
	for name, place := range at {
		v, err := strconv.ParseUint(word[place[0]], place[1], 64)
		if err != nil {
			return nil, nil, fmt.Errorf("line %q: %s: %w", line, name, err)
		}
		f[name] = decimal(v)
	}
	return word, f, nil
}

// briefOf makes a choice of fields that were read.
func briefOf(f fields, err error, queues ...string) (listed, error) {
	if err != nil {
		return listed{}, err
	}
	num := func(name string) uint64 { n, _ := strconv.ParseUint(f[name], 10, 64); return n }
	l := listed{inode: uint32(num("inode")), drops: uint32(num("drops"))}
	for _, name := range queues {
		l.waiting += num(name)
	}
	return l, nil
}

// unixLineDetail reads a line of /proc/net/unix (net/unix/af_unix.c,
// unix_seq_show), which tells of no queue. The state is that of struct socket
// (include/uapi/linux/net.h), and the flags say who listens.
func unixLineDetail(line []byte) (name string, f fields, err error) {
	word, f, err := procWords(line, 7, map[string][2]int{"type": {4, 16}, "state": {5, 16}, "inode": {6, 10}, "flags": {3, 16}})
	if err != nil {
		return "", nil, err
	}
	const acceptCon = 1 << 16 // __SO_ACCEPTCON
	n := func(name string) int { n, _ := strconv.Atoi(f[name]); return n }
	state := nameOf([]string{"free", "close", "connecting", "established", "disconnecting"}, n("state"))
	if n("flags")&acceptCon != 0 {
		state = "listen"
	}
	f["type"], f["state"] = nameOf(socketTypes, n("type")), state
	delete(f, "flags")
	f["path"] = ""
	if len(word) > 7 {
		_, f["path"], _ = strings.Cut(string(line), " "+word[6]+" ")
	}
	return unixName(f), f, nil
}

// errNoSocket says that a line is no socket: the name of a unix socket may
// hold a newline.
var errNoSocket = errors.New("not a socket")

func briefUnixLine(line []byte) (listed, error) {
	_, f, err := unixLineDetail(line)
	if err != nil {
		return listed{}, errNoSocket
	}
	return briefOf(f, nil)
}

// packetLineDetail reads a line of /proc/net/packet (net/packet/af_packet.c,
// packet_seq_show), which tells of no drops.
func packetLineDetail(line []byte) (name string, f fields, err error) {
	_, f, err = procWords(line, 9, map[string][2]int{
		"type": {2, 10}, "protocol": {3, 16}, "ifindex": {4, 10}, "running": {5, 10}, "rmem": {6, 10}, "uid": {7, 10}, "inode": {8, 10},
	})
	if err != nil {
		return "", nil, err
	}
	kind, _ := strconv.Atoi(f["type"])
	f["type"], f["recv_q"] = nameOf(socketTypes, kind), f["rmem"]
	return packetName(f), f, nil
}

func briefPacketLine(line []byte) (listed, error) {
	_, f, err := packetLineDetail(line)
	return briefOf(f, err, "rmem")
}

// netlinkLineDetail reads a line of /proc/net/netlink (net/netlink/
// af_netlink.c, netlink_native_seq_show), which tells of 32 groups.
func netlinkLineDetail(line []byte) (name string, f fields, err error) {
	word, f, err := procWords(line, 10, map[string][2]int{
		"protocol": {1, 10}, "portid": {2, 10}, "rmem": {4, 10}, "wmem": {5, 10}, "drops": {8, 10}, "inode": {9, 10},
	})
	if err != nil {
		return "", nil, err
	}
	groups, err := strconv.ParseUint(word[3], 16, 32)
	if err != nil {
		return "", nil, fmt.Errorf("line %q: groups: %w", line, err)
	}
	f["groups"] = bitNumbers(binary.NativeEndian.AppendUint64(nil, groups))
	f["recv_q"], f["send_q"] = f["rmem"], f["wmem"]
	return netlinkName(f), f, nil
}

func briefNetlinkLine(line []byte) (listed, error) {
	_, f, err := netlinkLineDetail(line)
	return briefOf(f, err, "rmem", "wmem")
}
