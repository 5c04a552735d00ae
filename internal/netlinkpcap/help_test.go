package netlinkpcap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// TestMain makes the zone of times that of the golden files.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

// testFamily is the family's number on the machines of the recordings.
const testFamily = 34

// equalAddr compares what cmp may not look into.
var equalAddr = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// testStart is when the files of the tests begin.
var testStart = time.Unix(1795335600, 123456789).UTC()

// recordings are the messages that were recorded on Debian's kernels, from the
// header of generic netlink on, by the name of the recording.
func recordings(t testing.TB) map[string][][]byte {
	t.Helper()
	text, err := os.ReadFile("../probe/dropmon/testdata/recorded.txt")
	if err != nil {
		t.Fatal(err)
	}
	name, isHex := "", regexp.MustCompile("^[0-9a-f]{8,}$")
	all := map[string][][]byte{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if s, ok := strings.CutPrefix(line, "# "); ok {
			name, _, _ = strings.Cut(s, ".txt,")
		}
		if !isHex.MatchString(line) {
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = append(all[name], b)
	}
	if len(all) < 10 {
		t.Fatalf("only %d recordings in the file", len(all))
	}
	return all
}

// wrap puts the header of netlink in front of a message.
func wrap(kind uint16, b []byte) []byte { return append(header(kind, unix.NLMSG_HDRLEN+len(b)), b...) }

// families is what the kernel says about its families, in as many messages.
func families(t testing.TB, id uint16) []byte {
	t.Helper()
	var out []byte
	for _, f := range []struct {
		name string
		id   uint16
	}{{"nlctrl", unix.GENL_ID_CTRL}, {"VFS_DQUOT", 17}, {"NET_DM", id}, {"tcp_metrics", 40}} {
		ae := netlink.NewAttributeEncoder()
		ae.String(unix.CTRL_ATTR_FAMILY_NAME, f.name)
		ae.Uint16(unix.CTRL_ATTR_FAMILY_ID, f.id)
		b, err := ae.Encode()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, wrap(unix.GENL_ID_CTRL, append([]byte{unix.CTRL_CMD_NEWFAMILY, 2, 0, 0}, b...))...)
	}
	return out
}

// at is a record of a file.
type at struct {
	after time.Duration // since testStart
	data  []byte
}

// capture is a file of records.
func capture(t testing.TB, records ...at) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := w.Write(testStart.Add(r.after), r.data); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// recorded is a file of a recording, as `whydrop dump` writes it.
func recorded(t testing.TB, messages [][]byte) []byte {
	t.Helper()
	times := timesOf(messages)
	begin := testStart
	if len(times) > 0 {
		begin = times[0].Add(-time.Second)
	}
	records := []at{{begin.Sub(testStart), families(t, testFamily)}}
	for i, m := range messages {
		records = append(records, at{times[i].Sub(testStart), wrap(testFamily, m)})
	}
	return capture(t, records...)
}

// timesOf are the times at which the messages of a recording came: those of the
// drops, and for others a moment after the one before.
func timesOf(messages [][]byte) []time.Time {
	var out []time.Time
	last := testStart
	for _, m := range messages {
		last = last.Add(time.Millisecond)
		if a, err := dropmon.Decode(m); err == nil && a.Packet != nil {
			last = a.Packet.Time.UTC()
		}
		out = append(out, last)
	}
	// What comes before the first drop is older than it.
	for i := len(out) - 2; i >= 0; i-- {
		if out[i+1].Sub(out[i]) > time.Minute {
			out[i] = out[i+1].Add(-time.Millisecond)
		}
	}
	return out
}

// readAll reads a file to its end, which is err.
func readAll(file []byte) (h record.Header, all []record.Interval, tr record.Trailer, err error) {
	plain, err := Plain(bytes.NewReader(file))
	if err != nil {
		return h, nil, tr, err
	}
	r, err := NewReader(plain)
	if err != nil {
		return h, nil, tr, err
	}
	h = r.Header()
	for {
		iv, err := r.Next()
		if err != nil {
			tr, _ = r.Trailer()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return h, all, tr, err
		}
		all = append(all, iv)
	}
}

// observe reads a file that is whole into one observation.
func observe(t testing.TB, file []byte) record.Observation {
	t.Helper()
	h, all, tr, err := readAll(file)
	if err != nil {
		t.Fatal(err)
	}
	c := record.NewCollector(h)
	for _, iv := range all {
		c.Add(iv)
	}
	return c.Finish(tr)
}

// swap gives numbers of a file's header, and of the header of each record, the
// other byte order, as a host of that order writes them.
func swap(t testing.TB, file []byte) []byte {
	t.Helper()
	out := bytes.Clone(file)
	turn := func(b []byte, widths ...int) {
		for _, n := range widths {
			for i := range n / 2 {
				b[i], b[n-1-i] = b[n-1-i], b[i]
			}
			b = b[n:]
		}
	}
	for rest := out[24:]; len(rest) > 0; {
		n := binary.LittleEndian.Uint32(rest[8:])
		turn(rest, 4, 4, 4, 4)
		rest = rest[16+n:]
	}
	turn(out, 4, 2, 2, 4, 4, 4, 4)
	return out
}
