//go:build root

package counter

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// martians sends packets whose source cannot be into the namespace, from peer0.
func martians(t *testing.T, ns, peer *netlab.Namespace, n int) {
	t.Helper()
	link, err := ns.Links().LinkByName("host0")
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{}, link.Attrs().HardwareAddr...)
	frame = append(frame, 2, 0, 0, 0, 0, 1, 8, 0)
	ip := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 192, 0, 2, 1, 0, 9, 0, 9, 0, 8, 0, 0}
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	ip[10], ip[11] = byte(^sum>>8), byte(^sum)
	frames(t, peer, append(append(frame, ip...), make([]byte, 30)...), n)
}

// TestKmsgCountsLines: the kernel announces a martian, and the reader counts as
// many lines as the log itself has.
func TestKmsgCountsLines(t *testing.T) {
	r := NewHostReader()
	defer r.Close()
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		peer, _ := pair(t, ns, "host0")
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/log_martians", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		var before, after Snapshot
		r.Read(&before)
		at := logEnd(t)
		// The kernel writes at most 10 messages in 5 seconds, of all
		// networks together.
		eventually(t, func() string {
			martians(t, ns, peer, 1)
			r.Read(&after)
			if value(t, after.Values, "kmsg.martian_source") == value(t, before.Values, "kmsg.martian_source") {
				return "the kernel did not announce a martian"
			}
			return ""
		})
		eventually(t, func() string {
			r.Read(&after)
			text := logSince(t, at)
			for _, name := range []string{"martian_source", "nf_conntrack_table_full", "link_down"} {
				grew := value(t, after.Values, "kmsg."+name) - value(t, before.Values, "kmsg."+name)
				if lines := plainLines(text, name); grew != lines {
					return fmt.Sprintf("%s grew by %d, the log by %d lines", name, grew, lines)
				}
			}
			return ""
		})
	})
}

// plainLines counts lines of one kind, as they are written on the kernels of
// the tests.
func plainLines(text, name string) (n uint64) {
	is := map[string]func(string) bool{
		"martian_source":          func(l string) bool { return strings.Contains(l, "IPv4: martian source ") },
		"nf_conntrack_table_full": func(l string) bool { return strings.Contains(l, ": table full") },
		"link_down":               func(l string) bool { return strings.HasSuffix(strings.ToLower(l), "link is down") },
	}[name]
	for line := range strings.Lines(text) {
		if is(strings.TrimSuffix(line, "\n")) {
			n++
		}
	}
	return n
}

// logEnd is the number of the line that comes next, by a way of its own.
func logEnd(t *testing.T) int {
	t.Helper()
	n := 0
	readLog(t, func(number int, _ string) { n = number + 1 })
	return n
}

func logSince(t *testing.T, from int) string {
	t.Helper()
	var b bytes.Buffer
	readLog(t, func(number int, line string) {
		if number >= from {
			b.WriteString(line + "\n")
		}
	})
	return b.String()
}

// readLog reads the lines of the kernel in the log.
func readLog(t *testing.T, fn func(number int, line string)) {
	t.Helper()
	fd, err := unix.Open(kmsgPath, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EAGAIN {
			return
		}
		if err == unix.EPIPE {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var priority, number int
		head, text, _ := strings.Cut(string(buf[:n]), ";")
		if _, err := fmt.Sscanf(head, "%d,%d,", &priority, &number); err != nil {
			t.Fatal(err)
		}
		if priority < 8 {
			line, _, _ := strings.Cut(text, "\n")
			fn(number, line)
		}
	}
}

// TestKmsgForged: a program that writes to the log cannot make a line that
// counts.
func TestKmsgForged(t *testing.T) {
	r := NewHostReader()
	defer r.Close()
	var before, after Snapshot
	r.Read(&before)
	end := logEnd(t)
	log, err := os.OpenFile(kmsgPath, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, prefix := range []string{"", "<0>", "<4>", "<12>"} {
		if _, err := log.WriteString(prefix + "whydrop's test: hfsc: classify hop budget exhausted\n"); err != nil {
			t.Fatal(err)
		}
	}
	r.Read(&after)
	const name = "kmsg.qdisc_classify_loop"
	if got, want := value(t, after.Values, name), value(t, before.Values, name); got != want {
		t.Errorf("%s went from %d to %d", name, want, got)
	}
	if text := logSince(t, end); strings.Contains(text, "whydrop's test") {
		t.Errorf("the kernel took it for its own:\n%s", text)
	}
	if after.Time.IsZero() || r.log.next < uint64(end)+4 {
		t.Errorf("the next line is %d, it ended at %d", r.log.next, end)
	}
}

// TestKmsgNeedsCapability reads the log without any capability.
func TestKmsgNeedsCapability(t *testing.T) {
	restricted, err := os.ReadFile("/proc/sys/kernel/dmesg_restrict")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan Snapshot)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		var s Snapshot
		newKmsg(kmsgPath).readInto(&s)
		done <- s
	}()
	s := <-done
	if string(bytes.TrimSpace(restricted)) == "0" {
		if len(s.Missing) > 0 || len(s.Values) == 0 {
			t.Errorf("%d values, missing %+v", len(s.Values), s.Missing)
		}
		return
	}
	if len(s.Values) > 0 || len(s.Missing) != 1 || !strings.Contains(s.Missing[0].Why, "CAP_SYSLOG") {
		t.Errorf("%d values, missing %+v", len(s.Values), s.Missing)
	}
}
