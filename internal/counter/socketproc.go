package counter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strconv"
	"time"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// maxListing is how long a list of sockets may take.
const maxListing = time.Second

// readFiles reads the sockets of a kind from those of its files that are
// there: a kernel without IPv6 has one of them, one without UDP-Lite (7.2 is)
// none.
func (k socketKind) readFiles(dir string, t *tally, inUse map[string]uint64) error {
	end := time.Now().Add(maxListing)
	for i, name := range k.files {
		if k.empty(i, len(k.files), inUse) {
			continue
		}
		err := kernelnet.ReadList(dir, name, end, func(list io.Reader) error { return parseSockets(list, t) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// maxLine is more than any line of a list of sockets has but those of unix
// sockets, which are not read.
const maxLine = 1 << 10

// socketLines yields the lines of r without their newline, in one buffer that is
// used again for each. Afterwards failed is what went wrong.
func socketLines(r io.Reader, failed *error) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		buf := make([]byte, 0, 16<<10)
		for {
			n, err := r.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			rest := buf
			for {
				line, after, whole := bytes.Cut(rest, []byte{'\n'})
				if !whole {
					break
				}
				if !yield(line) {
					return
				}
				rest = after
			}
			buf = buf[:copy(buf[:cap(buf)], rest)]
			switch {
			case errors.Is(err, io.EOF) && len(buf) > 0:
				*failed = errCutOff
				return
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				*failed = err
				return
			case len(buf) > maxLine:
				*failed = fmt.Errorf("line %q is longer than %d bytes", clip(buf), maxLine)
				return
			}
		}
	}
}

// socketColumns are the places of the numbers in a line.
type socketColumns struct{ inode, drops int }

// parseSockets reads a list such as /proc/net/udp (net/ipv4/udp.c,
// udp4_format_sock), raw, icmp or netlink (net/netlink/af_netlink.c,
// netlink_native_seq_show). A file without drops is one of a kernel that does
// not count them.
func parseSockets(r io.Reader, t *tally) error {
	var failed error
	var at *socketColumns
	for line := range socketLines(r, &failed) {
		if at == nil {
			at = columnsOf(line)
			if at == nil {
				return fmt.Errorf("heading %q: no inode or no drops", clip(line))
			}
			continue
		}
		l, err := at.parse(line)
		if err != nil {
			return err
		}
		t.add(l)
	}
	return failed
}

// columnsOf finds the columns by the heading, nil where one is missing. That
// of the lists of the internet protocols names the parts of tx_queue:rx_queue
// and tr:tm->when one by one, and both words are one in the lines below.
func columnsOf(heading []byte) *socketColumns {
	at := socketColumns{-1, -1}
	joined := 0
	for i, word := range bytes.Fields(heading) {
		switch string(word) {
		case "rx_queue", "tm->when":
			joined++
		case "inode", "Inode":
			at.inode = i - joined
		case "drops", "Drops":
			at.drops = i - joined
		}
	}
	if at.inode < 0 || at.drops < 0 {
		return nil
	}
	return &at
}

func (at socketColumns) parse(line []byte) (l loss, err error) {
	inode, drops := socketColumn(line, at.inode), socketColumn(line, at.drops)
	lost, err := kernelnet.ParseDrops(drops)
	if l.drops = uint64(lost); err == nil && lost > 0 {
		var n uint64
		n, err = strconv.ParseUint(string(inode), 10, 32)
		l.inode = uint32(n)
	}
	if err != nil {
		return loss{}, fmt.Errorf("socket %q: %w", clip(line), err)
	}
	return l, nil
}

// socketColumn is the word of that place in a line, nil behind its end.
func socketColumn(line []byte, n int) []byte {
	space := func(b byte) bool { return b == ' ' || b == '\t' }
	for {
		for len(line) > 0 && space(line[0]) {
			line = line[1:]
		}
		end := 0
		for end < len(line) && !space(line[end]) {
			end++
		}
		if n == 0 || end == 0 {
			return line[:end:end]
		}
		line, n = line[end:], n-1
	}
}

// readInUse reads how many sockets of each protocol the namespace has, by the
// names in /proc/net/protocols (net/core/sock.c, proto_seq_printf). In the
// number are those that are in the lists: programs have them, and they can
// receive.
func readInUse(dir string) (inUse map[string]uint64, err error) {
	err = kernelnet.ReadList(dir, "protocols", time.Now().Add(maxListing), func(list io.Reader) (err error) {
		inUse, err = parseInUse(list)
		return err
	})
	return inUse, err
}

func parseInUse(r io.Reader) (map[string]uint64, error) {
	inUse := map[string]uint64{}
	var failed error
	heading := true
	for line := range socketLines(r, &failed) {
		if heading {
			if string(socketColumn(line, 0)) != "protocol" || string(socketColumn(line, 2)) != "sockets" {
				return nil, fmt.Errorf("heading %q: no sockets", clip(line))
			}
			heading = false
			continue
		}
		n, err := strconv.ParseUint(string(socketColumn(line, 2)), 10, 64)
		if err != nil {
			continue // a name of two words, which none of those here is
		}
		inUse[string(socketColumn(line, 0))] += n
	}
	if heading && failed == nil {
		failed = errors.New("it is empty")
	}
	return inUse, failed
}

// inUse is how many sockets of a kind there are, and whether the kernel knows
// the kind at all.
func (k socketKind) inUse(inUse map[string]uint64) (n uint64, listed bool) {
	for _, p := range k.protocols {
		m, ok := inUse[p]
		n, listed = n+m, listed || ok
	}
	return n, listed
}

// empty says whether list i of so many need not be read: that of TCP looks at
// every slot of a table that all namespaces share (net/ipv4/inet_diag.c,
// inet_diag_dump_icsk), which takes a millisecond or more.
func (k socketKind) empty(i, lists int, inUse map[string]uint64) bool {
	return lists == len(k.protocols) && inUse[k.protocols[i]] == 0
}

// unseenPackets says that the losses of packet sockets are not known, where
// one receives: /proc/net/packet does not tell them.
func (s *Snapshot) unseenPackets(dir string) {
	n := 0
	err := kernelnet.ReadList(dir, "packet", time.Now().Add(maxListing), func(list io.Reader) (err error) {
		n, err = receivers(list)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		s.miss(missingSockets("packet"), err)
	} else if n > 0 {
		s.missFix(missingSockets("packet"), errors.New("the kernel tells their losses by the module af_packet_diag alone, which is not loaded"), "modprobe af_packet_diag")
	}
}

// receivers counts the sockets of /proc/net/packet that receive: those with a
// protocol (net/packet/af_packet.c, packet_seq_show).
func receivers(r io.Reader) (n int, err error) {
	heading := true
	for line := range socketLines(r, &err) {
		if !heading && string(socketColumn(line, 3)) != "0000" {
			n++
		}
		heading = false
	}
	return n, err
}
