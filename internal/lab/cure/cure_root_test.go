//go:build root

package cure

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// A command reaches the namespace by the number of the process, changes it and
// nothing else, and the process goes with the holder.
func TestHold(t *testing.T) {
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := Hold(ns.Do)
	if err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.PID()))
	if want := fmt.Sprintf("net:[%d]", ns.Inode()); err != nil || link != want {
		t.Errorf("the process is in %s, want %s: %v", link, want, err)
	}
	const setting = "net.ipv4.icmp_echo_ignore_all"
	before := readSetting(t)
	command := fmt.Sprintf("nsenter --net=/proc/%d/ns/net sysctl -w %s=1   # not for the host", h.PID(), setting)
	if err := Within(command, h.PID()); err != nil {
		t.Error(err)
	}
	r, err := Run(t.Context(), command)
	if err != nil || r.Code != 0 || r.Output != setting+" = 1" {
		t.Errorf("%+v, %v", r, err)
	}
	var inside string
	err = ns.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv4/icmp_echo_ignore_all")
		inside = strings.TrimSpace(string(text))
		return err
	})
	if err != nil || inside != "1" {
		t.Errorf("inside it is %q: %v", inside, err)
	}
	if after := readSetting(t); after != before {
		t.Errorf("outside it was %s and is %s", before, after)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", h.PID())); err == nil {
		t.Errorf("process %d is still there", h.PID())
	}
}

func readSetting(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/icmp_echo_ignore_all")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// What a command prints, and how it ends, is told; one that does not end is
// ended with all that it has started.
func TestRun(t *testing.T) {
	for command, want := range map[string]Result{
		"echo one; echo two >&2; exit 3": {Output: "one\ntwo", Code: 3},
		"no-such-program-at-all":         {Code: 127},
		"kill -9 $$":                     {Code: -1},
	} {
		r, err := Run(t.Context(), command)
		if err != nil || r.Code != want.Code || want.Output != "" && r.Output != want.Output {
			t.Errorf("%q: %+v, %v", command, r, err)
		}
	}
	if r, err := Run(t.Context(), "head -c 100000 /dev/zero | tr '\\0' x"); err != nil || len(r.Output) != maxOut {
		t.Errorf("%d bytes kept, %v", len(r.Output), err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	began := time.Now()
	if r, err := Run(ctx, "sleep 60 & sleep 60"); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("after %s: %+v, %v", time.Since(began), r, err)
	}
}
