//go:build root

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// console takes what a process prints and can be looked at meanwhile.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// await fails the test if the words are not printed within a minute.
func (c *console) await(t *testing.T, words string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(c.String(), words); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not printed within a minute: %q\n%s", words, c)
		}
	}
}

// diagnosed runs `whydrop diagnose -j` over the whole host.
func diagnosed(t *testing.T, d time.Duration, during func()) record.Diagnosis {
	t.Helper()
	c := command(t, "diagnose", "-j", "--duration", d.String())
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	begin(t, c)
	during()
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errOut.String())
	}
	var v record.Diagnosis
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	a := v.Accounting
	if sum := a.DropsAggregated + a.DropsFiltered + a.DropsUnattributed + a.MapFull; a.DropsSeen != sum {
		t.Errorf("%d drops seen, %d accounted for: %+v", a.DropsSeen, sum, a)
	}
	return v
}

func describe(fs []record.Finding) string {
	var b strings.Builder
	for _, f := range fs {
		fmt.Fprintf(&b, "%d %s %v at %v dev %v netns %v owner %v flows %v\n", f.Drops, f.Class, f.Reasons, f.Locations, f.Devices, f.NetNS, f.Owners, f.Flows)
	}
	return b.String()
}

// TestIdleHost watches this host, which has nothing to do, and then again
// with a single loss on it.
func TestIdleHost(t *testing.T) {
	testkit.NeedRoot(t)
	d := 30 * time.Second
	idle := d
	if testing.Short() { // an emulated machine, which has no neighbours
		d, idle = 2*time.Second, time.Second
	}
	quiet := diagnosed(t, idle, func() {})
	if len(quiet.Findings) != 0 {
		t.Errorf("an idle host has findings:\n%s", describe(quiet.Findings))
	}
	t.Logf("idle for %s: %+v", idle, quiet.Accounting)

	setup := prepared(t, "udp-rcvbuf")
	short := min(d, 10*time.Second)
	lossy := diagnosed(t, short, func() {
		time.Sleep(short / 3)
		if _, err := setup.Provoke(t.Context(), 1); err != nil {
			t.Error(err)
		}
	})
	if len(lossy.Findings) != 1 {
		t.Fatalf("want exactly the one loss that was provoked:\n%s", describe(lossy.Findings))
	}
	f := lossy.Findings[0]
	if f.Drops != 1 || f.Class != record.ClassCapacity || f.Station != record.StationSocket {
		t.Errorf("finding: %s", describe(lossy.Findings))
	}
}

// peakMemory is the most memory that a process has used, in bytes.
func peakMemory(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); f[0] == "VmHWM:" {
			kb, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no VmHWM in status of %d", pid)
	return 0
}

// TestStormOnATerminal watches a storm the way a person does.
func TestStormOnATerminal(t *testing.T) {
	const interval = 500 * time.Millisecond
	each := uint64(4_000_000)
	if testing.Short() { // an emulated machine
		each = 100_000
	}
	storms := []*testkit.Storm{
		testkit.NewStorm(t, 2, testkit.StormPackets(2)...),
		testkit.NewStorm(t, 2, testkit.StormPackets(2)...),
	}
	c := command(t, "watch", "-j", "--all", "--interval", interval.String())
	var out bytes.Buffer
	c.Stdout = &out
	begin(t, c)
	began := time.Now()
	truths := make([]testkit.StormTruth, len(storms))
	var wg sync.WaitGroup
	for i, s := range storms {
		wg.Go(func() {
			var err error
			if truths[i], err = s.Run(t.Context(), each); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	time.Sleep(2 * interval)
	memory := peakMemory(t, c.Process.Pid)
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	elapsed := time.Since(began)
	cpu := c.ProcessState.UserTime() + c.ProcessState.SystemTime()

	counted := map[uint32]uint64{}
	lines := 0
	var summary struct{ Accounting record.Accounting }
	scan := bufio.NewScanner(&out)
	scan.Buffer(nil, 16<<20)
	for ; scan.Scan(); lines++ {
		var l struct {
			Type   string
			Counts []record.Count
		}
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Counts {
			counted[n.NetNS.Inode] += n.Drops
		}
		if l.Type == "summary" {
			if err := json.Unmarshal(scan.Bytes(), &summary); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got, want uint64
	for i, s := range storms {
		got += counted[s.NetNS()]
		want += truths[i].Drops + truths[i].TestPackets
	}
	a := summary.Accounting
	if got+a.DropsUnattributed+a.MapFull != want {
		t.Errorf("counted %d, unattributed %d, map full %d; happened %d", got, a.DropsUnattributed, a.MapFull, want)
	}
	if a.DropsSeen < want {
		t.Errorf("summary has %d drops, happened %d", a.DropsSeen, want)
	}
	if most := int(elapsed/interval) + 3; lines > most {
		t.Errorf("%d lines in %s, want at most one an interval", lines, elapsed)
	}
	if memory > 64<<20 {
		t.Errorf("%d MiB of memory", memory>>20)
	}
	t.Logf("%d drops in %s; %d MiB of memory, %s of CPU, %d lines", want, elapsed, memory>>20, cpu, lines)
}

// TestHostileNames: what the host's users can name must not steer the
// terminal of the one who looks.
func TestHostileNames(t *testing.T) {
	testkit.NeedRoot(t)
	const device, comm = "\x1b[2Jevil", "\x1b]0;evil\x07"
	host, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	peer, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := netlab.Veth(
		netlab.End{NS: host, Name: device, Addr: netip.MustParsePrefix("192.0.2.1/24")},
		netlab.End{NS: peer, Name: "peer0", Addr: netip.MustParsePrefix("192.0.2.2/24")},
	); err != nil {
		t.Fatal(err)
	}
	ways := [][]string{{"watch", "--interval", "200ms"}, {"watch", "--each", "-j"}, {"watch", "--each"}, {"diagnose", "--duration", "1s"}}
	if testing.Short() { // an emulated machine: the first two print the same words
		ways = ways[2:]
	}
	type watcher struct {
		*exec.Cmd
		out, err console
	}
	var all []*watcher
	for _, args := range ways {
		w := &watcher{Cmd: command(t, append(args, "--netns", fmt.Sprint(host.Inode()))...)}
		w.Stdout, w.Stderr = &w.out, &w.err
		begin(t, w.Cmd)
		all = append(all, w)
	}
	err = peer.Do(func() error {
		if err := os.WriteFile("/proc/thread-self/comm", []byte(comm), 0); err != nil {
			return err
		}
		s, err := net.Dial("udp4", "192.0.2.1:9")
		if err != nil {
			return err
		}
		defer s.Close()
		_, err = s.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range all {
		if ways[i][0] == "watch" {
			w.out.await(t, "evil")
			if err := w.Process.Signal(unix.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Wait(); err != nil {
			t.Fatalf("%v: %v\n%s", ways[i], err, w.err.String())
		}
		if !strings.Contains(w.out.String(), "evil") {
			t.Errorf("%v: the device is not named:\n%s", ways[i], w.out.String())
		}
		if s := w.out.String() + w.err.String(); strings.ContainsAny(s, "\x1b\x07") {
			t.Errorf("%v: a control character got through: %q", ways[i], s)
		}
	}
}

// TestRecordAndRead records a loss and diagnoses the file as another user
// would, without root.
func TestRecordAndRead(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "nf-rule-drop")
	path := t.TempDir() + "/drops.whydrop"
	c := command(t, "record", "-w", path, "--netns", fmt.Sprint(setup.NetNS), "--interval", "100ms")
	begin(t, c)
	if _, err := setup.Provoke(t.Context(), 40); err != nil {
		t.Fatal(err)
	}
	recorded := func() bool {
		b, err := os.ReadFile(path)
		_, rest, found := bytes.Cut(b, []byte(`"drops":40`))
		return err == nil && found && bytes.Contains(rest, []byte("\n")) // a line may come in parts
	}
	for end := time.Now().Add(time.Minute); !recorded(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the 40 drops are not in the file after a minute")
		}
	}
	// Killed, it leaves a file that is good up to its last line.
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	nobody := asNobody(t, nil, "diagnose", "-j", "-r", "-")
	nobody.Stdin = bytes.NewReader(b)
	r := finish(t, nobody)
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		t.Fatalf("%v\n%s%s", err, r.out, r.err)
	}
	if r.code != exitPartial || len(d.Findings) != 1 || d.Findings[0].Drops != 40 {
		t.Errorf("exit status %d, %s", r.code, describe(d.Findings))
	}
}

// TestTerminal runs whydrop on a terminal of its own: colour, progress, and
// NO_COLOR.
func TestTerminal(t *testing.T) {
	testkit.NeedRoot(t)
	path := recorded(t, true)
	on := func(env ...string) string {
		c := command(t, "watch", "-r", path)
		// script(1) gives the command a pseudo-terminal.
		sh := exec.CommandContext(t.Context(), "script", "-qec", c.Path+" watch -r "+path, "/dev/null")
		sh.Env = append(append(c.Env, "TERM=xterm"), env...)
		out, err := sh.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out := on(); !strings.Contains(out, "\x1b[") {
		t.Errorf("no colour on a terminal: %q", out)
	}
	for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
		if out := on(env); strings.Contains(out, "\x1b[") {
			t.Errorf("colour on a terminal with %s: %q", env, out)
		}
	}
}
