package kernelnet

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReadList reads /dev/zero, a list without end.
func TestReadList(t *testing.T) {
	read := 0
	all := func(list io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(list, 1<<30))
		read = len(b)
		return err
	}
	err := ReadList("/dev", "zero", time.Now().Add(20*time.Millisecond), all)
	if err == nil || read == 0 || !strings.HasPrefix(err.Error(), "/proc/net/zero: ") {
		t.Errorf("without end: %d bytes, %v", read, err)
	}
	if err := ReadList("/dev", "zero", time.Now().Add(-time.Second), all); err == nil || read != 0 {
		t.Errorf("too late: %d bytes, %v", read, err)
	}
	dir := t.TempDir()
	if err := ReadList(dir, "udp", time.Now().Add(time.Minute), all); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no list: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "udp"), []byte("list"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ReadList(dir, "udp", time.Now().Add(time.Minute), all); err != nil || read != 4 {
		t.Errorf("%d bytes, %v", read, err)
	}
}

func TestParseDrops(t *testing.T) {
	for word, want := range map[string]uint32{"0": 0, "17": 17, "4294967295": 1<<32 - 1, "-2": 1<<32 - 2, "-2147483648": 1 << 31} {
		if got, err := ParseDrops([]byte(word)); got != want || err != nil {
			t.Errorf("%q: %d, %v", word, got, err)
		}
	}
	for _, word := range []string{"", "-", "x", "4294967296", "-2147483649", "1 "} {
		if got, err := ParseDrops([]byte(word)); err == nil {
			t.Errorf("%q: %d", word, got)
		}
	}
}

// TestDiagDump lists the sockets of netlink, which the test has one of. Nothing
// may be loaded for that.
func TestDiagDump(t *testing.T) {
	for m, size := range map[*Message]int{ // of include/uapi/linux
		new(InetDiag(unix.AF_INET, unix.IPPROTO_UDP, 0, 1, []byte{1, 2})): 56, new(UnixDiag(1)): 24, new(PacketDiag(1)): 20, new(NetlinkDiag(1)): 20,
	} {
		if len(*m) != size {
			t.Errorf("request of %d bytes, want %d", len(*m), size)
		}
	}
	if there, err := NewModules("").Has("netlink_diag"); err != nil || !there {
		return
	}
	n := 0
	err := DiagDump(NetlinkDiag(1), func(b []byte) error {
		n++
		return Attributes(b, SizeofNetlinkDiag, func(int, []byte) {})
	})
	if n == 0 && !errors.Is(err, ErrNoDiag) || n > 0 && err != nil {
		t.Errorf("%d sockets, %v", n, err)
	}
	if err := DiagDump(Message{}.U8(255, 0, 0, 0), nil); !errors.Is(err, ErrNoDiag) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("a family that is none: %v", err)
	}
}
