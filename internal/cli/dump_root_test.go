//go:build root

package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// The losses of these tests: datagrams to a port that nobody has open, in a
// namespace of their own. The monitor sees those of the whole host.
const (
	lossPort   = 9
	lossSource = 4242
)

// losses returns a function that provokes so many losses.
func losses(t *testing.T) func(n int) {
	t.Helper()
	ns := newNS(t)
	return func(n int) {
		t.Helper()
		if err := ns.Do(func() error { return loseTo(n) }); err != nil {
			t.Fatal(err)
		}
	}
}

func loseTo(n int) error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: lossSource})
	if err != nil {
		return err
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteTo([]byte("lost"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: lossPort}); err != nil {
			return err
		}
	}
	return nil
}

// ours are the drops of a file that the tests provoked, without what differs
// between two packets.
func ours(t *testing.T, path string) (list []record.Drop) {
	t.Helper()
	for _, d := range samplesOf(t, path) {
		p := d.Packet
		if p == nil || p.Flow.Dst.Port() != lossPort || p.Flow.Src.Port() != lossSource {
			continue
		}
		d.Time = time.Time{}
		if len(d.Headers) > 26 {
			copy(d.Headers[18:20], "\x00\x00") // the identification of IP
			copy(d.Headers[24:26], "\x00\x00") // the checksum of it
		}
		list = append(list, d)
	}
	return list
}

// samplesOf reads a file. One that is being written may end early.
func samplesOf(t *testing.T, path string) (list []record.Drop) {
	t.Helper()
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	r, done, err := a.openRecord(path)
	if err != nil {
		return nil
	}
	defer done()
	for {
		iv, err := r.Next()
		if err != nil {
			return list
		}
		list = append(list, iv.Samples...)
	}
}

// until waits for something to become true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// begun says whether a capture has its first record.
func begun(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Size() > 100
}

// startDwdump begins a capture of Debian's dwdump; the returned function ends it
// as a person does. dwdump leaves the monitor's configuration as it set it, in
// packet mode: what was before is set back.
func startDwdump(t *testing.T, args ...string) (path string, stop func()) {
	t.Helper()
	before := dropmonConfig(t)
	path = filepath.Join(t.TempDir(), "dwdump.pcap")
	c := exec.CommandContext(bounded(t), "dwdump", append(args, "-w", path)...)
	var problems bytes.Buffer
	c.Stderr = &problems
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		t.Helper()
		if ended {
			return
		}
		ended = true
		if err := c.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("dwdump: %v\n%s", err, problems.String())
		}
		setDropmonConfig(t, before)
	}
	t.Cleanup(stop)
	until(t, "dwdump to begin", func() bool { return begun(path) })
	return path, stop
}

func setDropmonConfig(t *testing.T, config dropmon.Config) {
	t.Helper()
	c, err := dropmon.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetConfig(config); err != nil {
		t.Error(err)
	}
}

// dumping is a capture of ours in this process.
type dumping struct {
	path     string
	out, err bytes.Buffer
	stop     func() error
}

// startDump begins a capture. Its fields out and err may be read after stop.
func startDump(t *testing.T, f dumpFlags) *dumping {
	t.Helper()
	d := &dumping{path: filepath.Join(t.TempDir(), "whydrop.pcap")}
	f.write, f.truncate = d.path, allBytes
	if f.queue == 0 {
		f.queue = 1000
	}
	if f.buffer == 0 {
		f.buffer = 1 << 20
	}
	a := &app{in: strings.NewReader(""), out: &d.out, err: &d.err, json: true}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.dump(ctx, &f) }()
	d.stop = func() error {
		cancel()
		d.stop = func() error { return nil }
		return <-ended
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("dump: %v", err)
		}
	})
	until(t, "dump to begin", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("dump: %v\n%s", err, d.err.String())
		default:
		}
		return begun(d.path)
	})
	return d
}

// attributes are the types and lengths of the attributes of the packet alerts in
// a file that are of our losses.
func attributes(t *testing.T, path string) (list []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, ci, err := p.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil || ci.CaptureLength != ci.Length {
			t.Fatalf("%s: %v, %d bytes of %d", path, err, ci.CaptureLength, ci.Length)
		}
		if want := []byte{0, 4, 3, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16}; !bytes.Equal(b[:16], want) {
			t.Fatalf("%s: cooked header %x, want %x", path, b[:16], want)
		}
		m := b[16:]
		if int(binary.NativeEndian.Uint32(m)) != len(m) || m[16] != dropmon.CommandPacketAlert ||
			!bytes.Contains(m, []byte{lossSource >> 8, lossSource & 0xff, 0, lossPort}) {
			continue
		}
		all, err := netlink.UnmarshalAttributes(m[20:])
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var text strings.Builder
		for _, a := range all {
			fmt.Fprintf(&text, "%d:%d ", a.Type&^unix.NLA_F_NESTED, a.Length)
		}
		list = append(list, text.String())
	}
}

// needDwdump fails the test without Debian's dwdump.
func needDwdump(t *testing.T) {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	if _, err := exec.LookPath("dwdump"); err != nil {
		t.Fatalf("%v (apt-get install dropwatch; make vm-deps does)", err)
	}
}

// TestDumpMatchesDwdump: of the same losses, one after the other, dwdump and dump
// write the same messages, and both files read back the same.
func TestDumpMatchesDwdump(t *testing.T) {
	needDwdump(t)
	lose := losses(t)
	const n = 5

	theirs, stop := startDwdump(t)
	lose(n)
	until(t, "dwdump to write", func() bool { return len(ours(t, theirs)) >= n })
	stop()
	d := startDump(t, dumpFlags{})
	lose(n)
	until(t, "dump to write", func() bool { return len(ours(t, d.path)) >= n })
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if d.err.Len() > 0 {
		t.Errorf("dump said %q", d.err.String())
	}

	want, got := ours(t, theirs), ours(t, d.path)
	if len(want) != n || len(got) != n {
		t.Errorf("%d drops in dwdump's file, %d in ours, %d happened", len(want), len(got), n)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(record.Flow{})); diff != "" {
		t.Errorf("drops (-dwdump +ours):\n%s", diff)
	}
	if diff := cmp.Diff(attributes(t, theirs), attributes(t, d.path)); diff != "" || len(attributes(t, d.path)) != n {
		t.Errorf("attributes (-dwdump +ours):\n%s", diff)
	}
	for _, path := range []string{theirs, d.path} {
		r := here(t, "report", "-r", path, "--all", "-j")
		var verdict record.Diagnosis
		if err := json.Unmarshal([]byte(r.out), &verdict); err != nil || r.code != exitOK {
			t.Fatalf("report of %s: exit status %d, %v\n%s%s", path, r.code, err, r.out, r.err)
		}
		if verdict.Accounting.DecodeErrors != 0 || verdict.Accounting.DropsSeen < n || verdict.Sources[0].State != record.SourceOK {
			t.Errorf("%s: %+v %+v", path, verdict.Accounting, verdict.Sources)
		}
	}
}

// TestDumpBesideDwdump: where another runs the monitor, dump only listens and
// leaves it running; -q and -s print what dwdump prints; -e stops it.
func TestDumpBesideDwdump(t *testing.T) {
	needDwdump(t)
	lose := losses(t)
	theirs, stop := startDwdump(t, "-t", "200", "-l", "77")
	for _, option := range []string{"-q", "-s"} {
		want, err := exec.Command("dwdump", option).Output()
		if err != nil {
			t.Fatal(err)
		}
		if r := here(t, "dump", option); r.code != exitOK || r.out != string(want) || r.err != "" {
			t.Errorf("dump %s: exit status %d\n%q %q\ndwdump: %q", option, r.code, r.out, r.err, want)
		}
	}
	d := startDump(t, dumpFlags{})
	lose(2)
	until(t, "dump to listen", func() bool { return len(ours(t, d.path)) == 2 })
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if said := d.err.String(); !strings.Contains(said, "dwdump") || !strings.Contains(said, "only listening") {
		t.Errorf("dump did not say that it only listens, and to whose: %q", said)
	}
	lose(1)
	until(t, "dwdump to go on", func() bool { return len(ours(t, theirs)) == 3 })
	if r := here(t, "dump", "-e"); r.code != exitOK || r.out+r.err != "" {
		t.Errorf("dump -e: exit status %d\n%s%s", r.code, r.out, r.err)
	}
	lose(1)
	time.Sleep(300 * time.Millisecond)
	if n := len(ours(t, theirs)); n != 3 {
		t.Errorf("after dump -e dwdump got %d drops, want 3", n)
	}
	stop()
}

// TestDumpSaysWhatItLost: more drops than the queue and the buffer hold are
// lost, counted, and in the file.
func TestDumpSaysWhatItLost(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	lose := losses(t)
	const n = 1000
	d := startDump(t, dumpFlags{queue: 1, buffer: 1})
	lose(n)
	time.Sleep(captureTick)
	err := d.stop()
	var said struct {
		Alerts     uint64 `json:"alerts"`
		AlertsLost uint64 `json:"alerts_lost"`
		DropsLost  uint64 `json:"drops_lost"`
	}
	if jerr := json.Unmarshal(d.out.Bytes(), &said); jerr != nil {
		t.Fatalf("%v: %s", jerr, d.out.String())
	}
	lost := said.AlertsLost + said.DropsLost
	if lost == 0 || said.Alerts+lost < n {
		t.Fatalf("%+v of %d drops", said, n)
	}
	if exitCode(err) != exitPartial || !strings.Contains(fmt.Sprint(err), "incomplete") {
		t.Errorf("exit status %d: %v", exitCode(err), err)
	}
	r := here(t, "report", "-r", d.path, "--all", "-j")
	var verdict record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &verdict); err != nil {
		t.Fatalf("%v\n%s%s", err, r.out, r.err)
	}
	if a := verdict.Accounting; a.DropsLost != lost || a.Samples != said.Alerts || a.DropsSeen != lost+said.Alerts {
		t.Errorf("the file says %+v; dump said %+v", a, said)
	}
}

// TestDumpIntoPipe: when nobody reads the pipe any more dump ends and stops the
// monitor.
func TestDumpIntoPipe(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	lose := losses(t)
	c := command(t, "dump", "--quiet")
	var problems bytes.Buffer
	c.Stderr = &problems
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	begin := make([]byte, 24)
	if _, err := io.ReadFull(out, begin); err != nil {
		t.Fatalf("%v\n%s", err, problems.String())
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- c.Wait() }()
	end := time.After(time.Minute)
	for ended := false; !ended; {
		lose(1)
		select {
		case err = <-gone:
			ended = true
		case <-time.After(100 * time.Millisecond):
		case <-end:
			_ = c.Process.Signal(syscall.SIGKILL)
			t.Fatal("dump does not end")
		}
	}
	if err != nil {
		t.Errorf("dump: %v\n%s", err, problems.String())
	}
	m, err := dropmon.Open(dropmon.Options{Software: true, Hardware: true})
	if err != nil {
		t.Fatal(err)
	}
	if s := m.Joined(); s != "" || len(m.Notes()) > 0 {
		t.Errorf("after dump: %q %q", s, m.Notes())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// TestDumpElsewhere: in another network namespace there is no monitor, and that
// is said; nothing is written.
func TestDumpElsewhere(t *testing.T) {
	testkit.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "drops.pcap")
	for _, args := range [][]string{{"dump", "-w", path}, {"dump", "-p", "-w", path}, {"dump", "-q"}, {"dump", "-s"}, {"dump", "-e"}} {
		var r result
		testkit.InNetNS(t, func(*netlab.Namespace) { r = here(t, args...) })
		if r.code != exitUnavailable || r.out != "" || !strings.Contains(r.err, "initial network namespace") {
			t.Errorf("%q: exit status %d\n%s%s", args, r.code, r.out, r.err)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a file was left: %v", err)
	}
}
