package fact

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// procSockets reads /proc/net/tcp and tcp6, or udp and udp6.
func (r *Reader) procSockets(file string, each func(*socket)) error {
	for _, name := range []string{file, file + "6"} {
		f, err := os.Open(r.path("/proc/thread-self/net/" + name))
		if name != file && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		err = parseProcSockets(f, each)
		f.Close()
		if err != nil {
			return fmt.Errorf("/proc/net/%s: %w", name, err)
		}
	}
	return nil
}

// parseProcSockets reads the table that tcp4_seq_show (net/ipv4/tcp_ipv4.c)
// and udp4_seq_show (net/ipv4/udp.c) print, and those of IPv6. Columns: number,
// local and remote address, state, tx_queue:rx_queue, timer, retransmissions,
// uid, timeout, inode, and with UDP references, pointer, drops.
func parseProcSockets(r io.Reader, each func(*socket)) error {
	lines := bufio.NewScanner(r)
	lines.Scan() // the heading
	for lines.Scan() {
		s, err := parseProcSocket(lines.Text())
		if err != nil {
			return err
		}
		each(&s)
	}
	return lines.Err()
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
	addr, port, _ := strings.Cut(word[1], ":")
	local, aerr := parseProcAddr(addr)
	send, recv, _ := strings.Cut(word[4], ":")
	s = socket{
		local: netip.AddrPortFrom(local, uint16(num(port, 16, 16))),
		state: uint8(num(word[3], 16, 8)),
		sendQ: num(send, 16, 32), recvQ: num(recv, 16, 32),
		uid: num(word[7], 10, 32), inode: num(word[9], 10, 32),
	}
	if len(word) >= 13 {
		s.hasDrops, s.drops = true, num(word[12], 10, 32)
	}
	if err == nil && aerr != nil {
		err = fmt.Errorf("line %q: %w", line, aerr)
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
		return netip.Addr{}, errShort
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
