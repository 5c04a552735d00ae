//go:build root

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestUntilLoss waits for a loss of the lab, saves it, and asks whether it is gone:
// first where nothing was changed, then where nothing is sent any more, of which
// nothing can be said.
func TestUntilLoss(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "udp-noport")
	space := fmt.Sprint(setup.NetNS)
	inhabit(t, spaceOf(t, setup.NetNS)) // before 6.18 another process finds its counters by a process only
	saved := filepath.Join(t.TempDir(), "before.wd")

	c := command(t, "diagnose", "-j", "--until-loss", "--timeout", "2m", "--netns", space, "--save", saved)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	begin(t, c)
	bursts, lost := 2, 20 // one loss with a pause in it
	pause := time.Second  // until the counters have been read, too
	if testing.Short() {  // an emulated machine may take longer between them than is waited for
		bursts, pause = 1, 4*time.Second
	}
	for range bursts {
		time.Sleep(pause)
		if _, err := setup.Provoke(t.Context(), lost/bursts); err != nil {
			t.Error(err)
		}
	}
	last := time.Now()
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errOut.String())
	}
	if waited := time.Since(last); waited > time.Minute {
		t.Errorf("the diagnosis came %s after the loss", waited)
	}
	var d record.Diagnosis
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(d.Findings) != 1 || d.Findings[0].Cause != "udp-noport" || d.Findings[0].Drops != 20 {
		t.Errorf("found %s", describe(d.Findings))
	}
	if r := here(t, "report", saved, "-q"); !strings.Contains(r.out, "20 packets dropped") || !strings.Contains(r.out, "udp-noport") {
		t.Errorf("what was saved: %+v", r)
	}

	c = command(t, "verify", saved, "--duration", "3s", "-j")
	out.Reset()
	c.Stdout, c.Stderr = &out, &errOut
	begin(t, c)
	time.Sleep(time.Second)
	if _, err := setup.Provoke(t.Context(), 10); err != nil {
		t.Error(err)
	}
	_ = c.Wait() // the exit status is looked at
	var cmp record.Comparison
	if err := json.Unmarshal(out.Bytes(), &cmp); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errOut.String())
	}
	if len(cmp.Changes) != 1 || cmp.Changes[0].Outcome != record.OutcomeSame || c.ProcessState.ExitCode() != exitFinding {
		t.Errorf("exit status %d, %+v", c.ProcessState.ExitCode(), cmp.Changes)
	}
	if r := here(t, "verify", saved, "--duration", "1s"); r.code != exitFinding || !strings.HasPrefix(r.out, "act: not known: udp-noport") {
		t.Errorf("without traffic: %+v", r)
	}
}

// TestUntilLossEnds: without a loss it ends in time and says so.
func TestUntilLossEnds(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		r := run(t, "diagnose", "--until-loss", "--timeout", "3s", "--netns", fmt.Sprint(ns.Inode()))
		first, _, _ := strings.Cut(r.out, "\n")
		if r.code != exitOK || !strings.HasPrefix(first, "nothing to do: no loss within 3") || !strings.Contains(first, "watched 2 sources") {
			t.Errorf("exit status %d: %s\n%s", r.code, first, r.err)
		}
	})
}

// TestUntilLossPieces: the pieces of a long wait leave no gap and make no loss of
// their edges, and a loss that no drop event tells of is found at the end of one.
func TestUntilLossPieces(t *testing.T) {
	testkit.NeedRoot(t)
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	const scenario = "tcp-accept-queue"
	setup := prepared(t, scenario)
	w := &waiter{
		app: &app{out: io.Discard, err: io.Discard}, knowledge: k, begin: time.Now(), every: time.Second,
		flags: &watching{filter: observe.Filter{NetNS: []string{fmt.Sprint(setup.NetNS)}}}, forgiven: map[string]time.Time{},
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lost := make(chan uint64, 1)
	go func() {
		for !attached(os.Getpid()) && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(3 * time.Second) // some pieces later
		truth, err := setup.Provoke(ctx, 5)
		if err != nil {
			t.Error(err)
		}
		lost <- truth.Drops
	}()
	o, found, err := w.wait(ctx, t.Context())
	if err != nil || !found {
		t.Fatalf("found %v: %v", found, err)
	}
	d := w.flags.judge(o, k)
	truth := <-lost
	if len(d.Findings) != 1 || d.Findings[0].Cause != scenario || d.Findings[0].Drops != truth {
		t.Errorf("found %s, lost were %d", describe(d.Findings), truth)
	}
	if from := o.Window.Start.Sub(w.begin); from < w.every {
		t.Errorf("the piece begins %s after the wait: nothing was forgotten", from)
	}
}

// TestPID: of the losses in a namespace those of a process are found by the ends of
// its sockets.
func TestPID(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		tid := fmt.Sprint(unix.Gettid()) // this thread alone is in the namespace
		mine, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		defer mine.Close()
		send := func(c net.Conn, n int) {
			for range n {
				_, _ = c.Write([]byte("x")) // refused: nobody listens
			}
		}
		c := command(t, "diagnose", "-j", "--duration", "3s", "--pid", tid)
		var out, errOut bytes.Buffer
		c.Stdout, c.Stderr = &out, &errOut
		begin(t, c)
		time.Sleep(time.Second)
		send(mine, 20)
		if err := c.Wait(); err != nil {
			t.Fatalf("%v: %s", err, errOut.String())
		}
		var d record.Diagnosis
		if err := json.Unmarshal(out.Bytes(), &d); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		if len(d.Findings) != 1 || d.Findings[0].Concerns == nil || d.Findings[0].Concerns.Samples == 0 || d.Elsewhere == nil || d.Elsewhere.Findings != 0 {
			t.Errorf("found %s, elsewhere %+v, not seen %+v", describe(d.Findings), d.Elsewhere, d.Blind)
		}
		if !slices.ContainsFunc(d.Blind, func(b record.Blind) bool { return strings.Contains(b.What, "process "+tid) }) {
			t.Errorf("what is known of the process is not said: %+v", d.Blind)
		}
	})
}
