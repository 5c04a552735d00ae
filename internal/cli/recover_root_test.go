//go:build root

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestRecoverDropMonitor: a monitor that was left running is stopped, unless
// somebody listens to it.
func TestRecoverDropMonitor(t *testing.T) {
	testkit.NeedRoot(t)
	const nothing = "nothing was left running"
	if r := here(t, "doctor", "--recover-dropmon"); r.code != exitOK || !strings.HasPrefix(r.out, nothing) || r.err != "" {
		t.Fatalf("exit status %d\n%s%s", r.code, r.out, r.err)
	}
	if !testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		return
	}
	c, err := dropmon.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Start(true, false); err != nil {
		t.Fatal(err)
	}
	defer c.Stop(true, true)
	if err := c.Join(); err != nil {
		t.Fatal(err)
	}
	r := here(t, "doctor", "--recover-dropmon")
	if want := fmt.Sprintf("(pid %d) listens", os.Getpid()); r.code != exitPartial || r.out != "" || !strings.Contains(r.err, want) {
		t.Errorf("while somebody listens: exit status %d\n%s%s", r.code, r.out, r.err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	r = here(t, "doctor", "--recover-dropmon", "-j")
	var got recovered
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != exitOK || got.SchemaVersion != record.SchemaVersion ||
		!strings.HasPrefix(got.Recovered, "stopped the drop monitor") {
		t.Errorf("exit status %d, %v\n%s%s", r.code, err, r.out, r.err)
	}
	if r := here(t, "doctor", "--recover-dropmon"); r.code != exitOK || !strings.HasPrefix(r.out, nothing) {
		t.Errorf("once more: exit status %d\n%s%s", r.code, r.out, r.err)
	}
}

// TestRecoverElsewhere: in another network namespace the monitor cannot be
// asked, and that is said.
func TestRecoverElsewhere(t *testing.T) {
	testkit.NeedRoot(t)
	var r result
	testkit.InNetNS(t, func(*netlab.Namespace) { r = here(t, "doctor", "--recover-dropmon") })
	if r.code != exitUnavailable || r.out != "" || !strings.Contains(r.err, "initial network namespace") {
		t.Errorf("exit status %d\n%s%s", r.code, r.out, r.err)
	}
}
