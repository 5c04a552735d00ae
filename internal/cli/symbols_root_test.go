//go:build root

package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// withoutSyslog calls f on a thread whose children cannot have CAP_SYSLOG: to
// them the kernel hides its addresses.
func withoutSyslog(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYSLOG, 0, 0, 0)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestSymbolsRefused: a map that cannot be used is refused with the reason, and
// nothing is watched.
func TestSymbolsRefused(t *testing.T) {
	r := here(t, "watch", "--duration", "1s", "--symbols", testkit.SystemMap(t, testkit.OtherBuild))
	if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, "System.map is not of this kernel: ") {
		t.Errorf("another kernel's: exit status %d\n%s%s", r.code, r.out, r.err)
	}
	path := testkit.SystemMap(t, nil)
	c := command(t, "watch", "--source", "bpf", "--duration", "1s", "--symbols", path)
	withoutSyslog(t, func() { r = finish(t, c) })
	if r.code != exitUnavailable || r.out != "" || !strings.Contains(r.err, "where its symbols lie in the kernel is not known") ||
		!strings.Contains(r.err, "CAP_SYSLOG") {
		t.Errorf("hidden addresses: exit status %d\n%s%s", r.code, r.out, r.err)
	}
}

// TestSymbolsByAlerts: where the kernel hides its addresses, the drop monitor's
// own words say where a System.map lies.
func TestSymbolsByAlerts(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	path := testkit.SystemMap(t, nil)
	c := command(t, "watch", "-j", "--all", "--source", "dropmon:packet", "--duration", "4s", "--symbols", path)
	stop := make(chan struct{})
	go closedPorts(stop)
	var r result
	withoutSyslog(t, func() { r = finish(t, c) })
	close(stop)
	if r.code != exitOK {
		t.Fatalf("exit status %d\n%s%s", r.code, r.out, r.err)
	}
	if !strings.Contains(r.out, " above the file's addresses (the drop monitor's alert of ") {
		t.Errorf("the map was not placed:\n%s%s", r.out, r.err)
	}
	if !strings.Contains(r.out, `"symbol":"__udp4_lib_rcv"`) && !strings.Contains(r.out, `"symbol":"udp_rcv"`) {
		t.Errorf("the drops have no name:\n%s", r.out)
	}
}

// closedPorts sends packets to a port that nobody has, over lo.
func closedPorts(stop <-chan struct{}) {
	c, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		return
	}
	defer c.Close()
	for {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
			_, _ = c.Write([]byte("hello")) // a refusal is what the last one met
		}
	}
}

// TestSymbolsLater: what was recorded without names gets them from a System.map
// when it is read, and the same verdict follows.
func TestSymbolsLater(t *testing.T) {
	setup := prepared(t, "udp-noport")
	path := testkit.SystemMap(t, nil)
	file := filepath.Join(t.TempDir(), "drops.whydrop")
	c := command(t, "record", "-w", file, "--symbols", "none", "--netns", fmt.Sprint(setup.NetNS), "--interval", "100ms")
	begin(t, c)
	if _, err := setup.Provoke(t.Context(), 40); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	interrupt(t, c)
	raw := reported(t, file)
	if !strings.Contains(strings.Join(raw.Findings[0].Locations, " "), "0x") || strings.Contains(raw.Findings[0].Locations[0], "+") {
		t.Errorf("recorded without names: %v", raw.Findings[0].Locations)
	}
	named := reported(t, file, "--symbols", path)
	if at := named.Findings[0].Locations[0]; !strings.HasPrefix(at, "__udp4_lib_rcv+0x") && !strings.HasPrefix(at, "udp_rcv+0x") {
		t.Errorf("named later: %v", named.Findings[0].Locations)
	}
	f := named.Findings[0]
	// Before 5.17 the place alone tells the cause, and whoever recorded without
	// names did not know which facts it would ask for.
	if f.Drops != 40 || len(f.Reasons) > 0 && f.Cause != "udp-noport" {
		t.Errorf("the verdict is %s", describe(named.Findings))
	}
	r := here(t, "report", "-r", file, "--symbols", testkit.SystemMap(t, testkit.OtherBuild))
	if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, "is not of this kernel") {
		t.Errorf("another kernel's: exit status %d\n%s%s", r.code, r.out, r.err)
	}
}

// interrupt ends a process as Ctrl-C does.
func interrupt(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
}

// reported is the verdict on a recorded file.
func reported(t *testing.T, file string, args ...string) record.Diagnosis {
	t.Helper()
	r := here(t, append([]string{"report", "-j", "-r", file}, args...)...)
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil || r.code != exitOK || len(d.Findings) != 1 {
		t.Fatalf("exit status %d, %v\n%s%s", r.code, err, r.out, r.err)
	}
	return d
}
