package netlinkpcap

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/whydrop/whydrop/record"
)

// TestRecordedMessagesComeBack: what is written is read back byte for byte, with
// its time.
func TestRecordedMessagesComeBack(t *testing.T) {
	for name, recording := range recordings(t) {
		t.Run(name, func(t *testing.T) {
			in, err := openMessages(bufio.NewReader(bytes.NewReader(recorded(t, recording))))
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; ; {
				m, err := in.read()
				if errors.Is(err, io.EOF) {
					if i != len(recording) || in.broken != 0 {
						t.Errorf("%d messages came back of %d, %d broken", i, len(recording), in.broken)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if m.kind != testFamily {
					continue // the families
				}
				if want := wrap(testFamily, recording[i]); !bytes.Equal(m.data, want) {
					t.Errorf("message %d: read %x, written %x", i, m.data, want)
				}
				if want := timesOf(recording)[i]; !m.time.Equal(want) {
					t.Errorf("message %d: time %s, want %s", i, m.time, want)
				}
				i++
			}
		})
	}
}

// cookedHeader is what dwdump 1.5.4 and captures of nlmon have in front of a
// generic netlink message.
var cookedHeader = []byte{0, 4, 3, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16}

func TestHeaderOfFile(t *testing.T) {
	b := capture(t, at{0, []byte("message")})
	want := []byte{
		0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 253, 0, 0, 0, // nanoseconds, 262144, 253
	}
	if !bytes.Equal(b[:24], want) {
		t.Errorf("file begins with %x, want %x", b[:24], want)
	}
	if got := b[24+16 : 24+16+cookedLen]; !bytes.Equal(got, cookedHeader) {
		t.Errorf("cooked header %x, want %x", got, cookedHeader)
	}
	if got := b[24+16+cookedLen:]; string(got) != "message" {
		t.Errorf("message %q", got)
	}
}

// TestLongMessage: what is longer than a record may be is cut, and read as
// broken.
func TestLongMessage(t *testing.T) {
	long := wrap(testFamily, make([]byte, maxRecord))
	b := capture(t, at{0, families(t, testFamily)}, at{0, long})
	o := observe(t, b)
	if o.Accounting.DecodeErrors != 1 {
		t.Errorf("%d decode errors, want 1", o.Accounting.DecodeErrors)
	}
	last := b[len(b)-maxRecord-16:]
	if got := binary.LittleEndian.Uint32(last[12:]); got != uint32(len(long)+cookedLen) {
		t.Errorf("the record says %d bytes, there were %d", got, len(long)+cookedLen)
	}
}

func TestTimesThatPcapCannotExpress(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, tm := range []time.Time{time.Unix(-1, 0), {}, time.Unix(1<<33, 5)} {
		if err := w.Write(tm, families(t, testFamily)); err != nil {
			t.Fatal(err)
		}
	}
	in, err := openMessages(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for m, err := in.read(); err == nil; m, err = in.read() {
		if s := m.time.Unix(); len(got) == 0 || got[len(got)-1] != s {
			got = append(got, s)
		}
	}
	if d := cmp.Diff([]int64{0, 1<<32 - 1}, got); d != "" {
		t.Errorf("seconds (-want +got):\n%s", d)
	}
}

// ngFile is the same records as pcapng, behind a device of another kind.
func ngFile(t testing.TB, file []byte, link layers.LinkType) []byte {
	t.Helper()
	p, err := pcapgo.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{Name: "eth0", LinkType: layers.LinkTypeEthernet}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	id, err := w.AddInterface(pcapgo.NgInterface{Name: "nlmon0", LinkType: link, TimestampResolution: 9})
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 60)
	if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: testStart, CaptureLength: 60, Length: 60}, frame); err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, err := p.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ci.InterfaceIndex = id
		if err := w.WritePacket(ci, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// micro is the same file with microseconds.
func micro(t *testing.T, file []byte, link uint32) []byte {
	t.Helper()
	out := bytes.Clone(file)
	binary.LittleEndian.PutUint32(out, 0xa1b2c3d4)
	binary.LittleEndian.PutUint32(out[20:], link)
	for rest := out[24:]; len(rest) > 0; {
		binary.LittleEndian.PutUint32(rest[4:], binary.LittleEndian.Uint32(rest[4:])/1000)
		rest = rest[16+binary.LittleEndian.Uint32(rest[8:]):]
	}
	return out
}

// TestForms: the same messages in each form of a file are the same observation.
func TestForms(t *testing.T) {
	file := recorded(t, recordings(t)["full-trixie-cloud"])
	want := observe(t, file)
	if want.Accounting.DropsSeen == 0 || want.Accounting.Samples == 0 {
		t.Fatalf("nothing in the file: %+v", want.Accounting)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"microseconds":              micro(t, file, uint32(linkNetlink)),
		"cooked":                    micro(t, file, uint32(layers.LinkTypeLinuxSLL)),
		"other byte order":          swap(t, file),
		"gzip":                      zipped.Bytes(),
		"pcapng":                    ngFile(t, file, linkNetlink),
		"pcapng of a cooked device": ngFile(t, file, layers.LinkTypeLinuxSLL),
	} {
		t.Run(name, func(t *testing.T) {
			got := observe(t, b)
			// The start is that of a record of the file, which may have less digits.
			got.Window.Start, got.Window.End = want.Window.Start, want.Window.End
			if d := cmp.Diff(want.Window.Duration, got.Window.Duration.Round(time.Microsecond)); d != "" {
				got.Window.Duration = want.Window.Duration
			}
			if d := cmp.Diff(want, got, cmp.Comparer(func(a, b record.Window) bool { return true }), equalAddr); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestWhatIsNoCapture(t *testing.T) {
	ethernet := micro(t, recorded(t, nil), uint32(layers.LinkTypeEthernet))
	for name, tt := range map[string]struct {
		file []byte
		want error
	}{
		"empty":              {nil, ErrNotNetlink},
		"text":               {[]byte("{\"type\":\"whydrop-record\"}\n"), ErrNotNetlink},
		"of Ethernet":        {ethernet, ErrNotNetlink},
		"pcapng of Ethernet": {ngFile(t, capture(t), linkNetlink), ErrNotNetlink},
		"header alone":       {capture(t), ErrTruncated},
		"half a header":      {capture(t)[:12], ErrTruncated},
		"half a record":      {recorded(t, nil)[:60], ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, _, err := readAll(tt.file); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := Plain(bytes.NewReader([]byte{0x1f, 0x8b, 1, 2})); err == nil {
		t.Error("broken gzip is no error")
	}
}

// TestOtherByteOrder: messages of a host of the other byte order are refused, not
// misread.
func TestOtherByteOrder(t *testing.T) {
	m := families(t, testFamily)
	n := binary.NativeEndian.Uint32(m)
	swapped := []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	if binary.NativeEndian.Uint32(swapped) == n {
		t.Fatal("a number that reads the same both ways shows nothing")
	}
	copy(m, swapped)
	if _, _, _, err := readAll(capture(t, at{0, m})); !errors.Is(err, ErrByteOrder) {
		t.Errorf("error %v, want %v", err, ErrByteOrder)
	}
}

// TestEachTruncation: a file that ends anywhere is an error or its beginning,
// and never more than the whole.
func TestEachTruncation(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the package and this test have one goroutine, so the race detector has nothing to find")
	}
	file := recorded(t, recordings(t)["hw-netdevsim-bookworm-cloud"])
	whole := observe(t, file)
	ends := 0
	for n := range file {
		_, all, _, err := readAll(file[:n])
		switch {
		case errors.Is(err, ErrTruncated), n < 4 && errors.Is(err, ErrNotNetlink):
		case err == nil:
			ends++ // between two records
		default:
			t.Fatalf("%d bytes: %v", n, err)
		}
		var a record.Accounting
		for _, iv := range all {
			a.Add(iv.Accounting)
		}
		if a.DropsSeen > whole.Accounting.DropsSeen || a.Samples > whole.Accounting.Samples || a.DecodeErrors > 0 {
			t.Fatalf("%d bytes: %+v, the whole file has %+v", n, a, whole.Accounting)
		}
	}
	if want := len(recordings(t)["hw-netdevsim-bookworm-cloud"]); ends != want {
		t.Errorf("%d beginnings were whole files, want %d", ends, want)
	}
}
