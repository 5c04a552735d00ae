//go:build root

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/testkit"
)

// Each scenario works, twice in a row and for a single packet, and leaves
// nothing behind.
func TestScenarios(t *testing.T) {
	testkit.NeedRoot(t)
	for _, s := range List() {
		t.Run(s.Name, func(t *testing.T) {
			check := nothingLeft(t)
			for range 2 {
				testScenario(t, s)
			}
			check()
		})
	}
}

func testScenario(t *testing.T, s Scenario) {
	setup, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer setup.Close()
	inodes, held := heldInodes(t)
	if !strings.Contains(inodes, fmt.Sprintf("net:[%d]", setup.NetNS)) {
		t.Errorf("namespace %d is not among those held: %s", setup.NetNS, inodes)
	}
	if setup.Device != hostDevice || !setup.Flow.IsValid() {
		t.Errorf("device %q, flow %v", setup.Device, setup.Flow)
	}
	handles, handlesErr := nsHandles(held)
	for _, n := range []int{100, 100, 1} {
		truth, err := setup.Provoke(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		checkTruth(t, truth, n)
	}
	for range 2 {
		if err := setup.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := setup.Provoke(t.Context(), 1); err == nil {
		t.Error("provoke after close gave no error")
	}
	t.Run("removed", func(t *testing.T) { waitGone(t, handles, handlesErr) })
}

// heldInodes returns the namespaces that this process holds besides its own.
func heldInodes(t *testing.T) (inodes string, paths []string) {
	paths = foreignNamespaces(t, os.Getpid())
	for _, path := range paths {
		target, _ := os.Readlink(path)
		inodes += target
	}
	return inodes, paths
}

func checkTruth(t *testing.T, truth Truth, n int) {
	t.Helper()
	if truth.Drops != uint64(n) || truth.Sent != truth.Drops+truth.Delivered {
		t.Errorf("provoke %d: %+v", n, truth)
	}
	found := false
	for _, e := range truth.Evidence {
		if e.Kind != "counter" {
			continue
		}
		found = true
		var before, after int
		if _, err := fmt.Sscan(e.Before+" "+e.After, &before, &after); err != nil || after-before != n || e.Value != fmt.Sprint(n) {
			t.Errorf("provoke %d: evidence %+v", n, e)
		}
	}
	if !found {
		t.Errorf("provoke %d: no counter in the evidence %+v", n, truth.Evidence)
	}
}

// More packets than one batch, in all scenarios at once.
func TestScenariosTogether(t *testing.T) {
	testkit.NeedRoot(t)
	var wg sync.WaitGroup
	for _, s := range List() {
		wg.Go(func() {
			setup, err := s.Prepare(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer setup.Close()
			truth, err := setup.Provoke(t.Context(), 5000)
			if err != nil {
				t.Errorf("%s: %v", s.Name, err)
				return
			}
			checkTruth(t, truth, 5000)
		})
	}
	wg.Wait()
}

func TestRefuses(t *testing.T) {
	testkit.NeedRoot(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range List() {
		if _, err := s.Prepare(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: prepare after cancel: %v", s.Name, err)
		}
		setup, err := s.Prepare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer setup.Close()
		for _, n := range []int{0, -1} {
			if truth, err := setup.Provoke(t.Context(), n); err == nil {
				t.Errorf("%s: provoke %d: %+v", s.Name, n, truth)
			}
		}
		truth, err := setup.Provoke(cancelled, 10)
		if !errors.Is(err, context.Canceled) || truth.Drops != 0 || truth.Sent != truth.Delivered {
			t.Errorf("%s: provoke after cancel: %+v, %v", s.Name, truth, err)
		}
		// What was cancelled does not show in the next truth.
		truth, err = setup.Provoke(t.Context(), 10)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		checkTruth(t, truth, 10)
	}
}

// A kernel that counts too much or too little is not believed.
func TestDisagreement(t *testing.T) {
	testkit.NeedRoot(t)
	setup, err := udpNoPort().Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer setup.Close()
	honest := setup.rig.lost
	setup.rig.patience = 50 * time.Millisecond
	for _, c := range []struct {
		name     string
		num, den uint64
		want     []string
	}{
		{"twice", 2, 1, []string{"sent 7", "counts 14 lost"}},
		{"half", 1, 2, []string{"did not handle", "sent 6", "counts 3 lost"}},
	} {
		base, err := honest()
		if err != nil {
			t.Fatal(err)
		}
		setup.rig.lost = func() (uint64, error) {
			v, err := honest()
			return base + (v-base)*c.num/c.den, err
		}
		_, err = setup.Provoke(t.Context(), 7-int(c.den-1))
		if err == nil {
			t.Fatalf("%s: no error", c.name)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q lacks %q", c.name, err, want)
			}
		}
	}
}

const childEnv = "WHYDROP_LAB_CHILD"

// Being killed leaves nothing either.
func TestKilled(t *testing.T) {
	testkit.NeedRoot(t)
	if os.Getenv(childEnv) != "" {
		labChild(t)
		return
	}
	check := nothingLeft(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "busy" {
	}
	paths := foreignNamespaces(t, cmd.Process.Pid)
	if len(paths) < 2*len(List()) {
		t.Fatalf("the child holds %v", paths)
	}
	handles, handlesErr := nsHandles(paths)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	check()
	waitGone(t, handles, handlesErr)
}

// labChild is busy with every scenario until it is killed.
func labChild(t *testing.T) {
	// It ends by itself should nobody kill it.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var started, all sync.WaitGroup
	for _, s := range List() {
		setup, err := s.Prepare(ctx)
		if err != nil {
			t.Fatal(err)
		}
		started.Add(1)
		all.Go(func() {
			_, err := setup.Provoke(ctx, 100)
			started.Done()
			for err == nil {
				_, err = setup.Provoke(ctx, 100)
			}
		})
	}
	started.Wait()
	fmt.Println("busy")
	all.Wait()
}
