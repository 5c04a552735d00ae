//go:build root

package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// Each scenario works, and leaves nothing behind. (TestScenariosTogether and
// internal/cli prepare it once more.)
func TestScenarios(t *testing.T) {
	testkit.NeedRoot(t)
	var handles []unix.FileHandle
	var handlesErr error
	for _, s := range List() {
		t.Run(s.Name, func(t *testing.T) {
			needKernel(t, s)
			check := nothingLeft(t)
			h, err := testScenario(t, s)
			handles = append(handles, h...)
			handlesErr = cmp.Or(handlesErr, err)
			check()
		})
	}
	t.Run("removed", func(t *testing.T) { waitGone(t, handles, handlesErr) })
}

// needKernel skips the test on a kernel of which the expectation says that the
// scenario cannot work there.
func needKernel(t *testing.T, s Scenario) {
	t.Helper()
	e, err := Expected(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	if kernel := kernelRelease(t); !e.WorksOn(kernel) {
		t.Skipf("not on %s: %s", kernel, e.Why)
	}
	if e.MachineOnly != "" && !testkit.InMachine() {
		t.Skipf("only in a virtual machine: %s", e.MachineOnly)
	}
}

func kernelRelease(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Release[:])
}

// testScenario returns what nsHandles says about the scenario's namespaces.
func testScenario(t *testing.T, s Scenario) ([]unix.FileHandle, error) {
	setup, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer setup.Close()
	inodes, held := heldInodes(t)
	if !strings.Contains(inodes, fmt.Sprintf("net:[%d]", setup.NetNS)) {
		t.Errorf("namespace %d is not among those held: %s", setup.NetNS, inodes)
	}
	if setup.Device == "" || setup.Flow != (record.Flow{}) && !setup.Flow.IsValid() {
		t.Errorf("device %q, flow %v", setup.Device, setup.Flow)
	}
	handles, handlesErr := nsHandles(held)
	provoke(t, setup, 1)
	refuses(t, setup)
	provoke(t, setup, 50)
	repairs(t, s, setup)
	for range 2 {
		if err := setup.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := setup.Provoke(t.Context(), 1); err == nil {
		t.Error("provoke after close gave no error")
	}
	if _, err := setup.Prove(t.Context(), 1); err == nil || setup.Repair() == nil {
		t.Error("repair or prove after close gave no error")
	}
	return handles, handlesErr
}

// repairs looks whether what the scenario itself does ends the loss. A remedy
// that is a command is tried where whydrop has found it (internal/cli).
func repairs(t *testing.T, s Scenario, setup *Setup) {
	t.Helper()
	want, err := Expected(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	if want.Remedy != RemedyRepair {
		if err := setup.Repair(); err == nil {
			t.Errorf("remedy %s, and yet there is a repair", want.Remedy)
		}
		return
	}
	if err := setup.Repair(); err != nil {
		t.Error(err)
		return
	}
	const again = 100
	if lost, err := setup.Prove(t.Context(), again); err != nil || lost > again/100 {
		t.Errorf("after the repair %d of %d are still lost: %v", lost, again, err)
	}
}

func provoke(t *testing.T, setup *Setup, n int) {
	t.Helper()
	truth, err := setup.Provoke(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	checkTruth(t, truth, n)
}

// refuses provokes what must not be. What was cancelled must not show in the
// next truth.
func refuses(t *testing.T, setup *Setup) {
	t.Helper()
	for _, n := range []int{0, -1} {
		if truth, err := setup.Provoke(t.Context(), n); err == nil {
			t.Errorf("provoke %d: %+v", n, truth)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	truth, err := setup.Provoke(cancelled, 10)
	if !errors.Is(err, context.Canceled) || truth.Drops != 0 || truth.Sent != truth.Delivered {
		t.Errorf("provoke after cancel: %+v, %v", truth, err)
	}
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

// More packets than one batch, with other scenarios going on beside it.
func TestScenariosTogether(t *testing.T) {
	testkit.NeedRoot(t)
	const n = int(batch) + 1
	every := 1
	if testing.Short() { // an emulated machine, which runs `whydrop lab run all` besides: as many packets of each, one after the other
		every = 3
	}
	for i, s := range List() {
		if i%every != 0 {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			needKernel(t, s)
			setup, err := s.Prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer setup.Close()
			provoke(t, setup, n)
		})
	}
}

func TestPrepareCancelled(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range List() {
		if _, err := s.Prepare(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: prepare after cancel: %v", s.Name, err)
		}
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

// childScenarios are one of each way to lose packets: a few, so that the child
// is soon busy with all of them.
func childScenarios(t *testing.T) (some []Scenario) {
	t.Helper()
	for _, name := range []string{"xdp-drop", "nf-rule-drop", "ip-ttl", "tcp-no-listener", "udp-rcvbuf", "tc-egress-drop"} {
		s, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		some = append(some, s)
	}
	return some
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
	var held []int // the processes that hold the child's namespaces
	for lines.Scan() && lines.Text() != "busy" {
		var pid int
		if _, err := fmt.Sscanf(lines.Text(), "held by %d", &pid); err == nil {
			held = append(held, pid)
		}
	}
	if len(held) != len(childScenarios(t)) {
		t.Errorf("held by %d", held)
	}
	paths := foreignNamespaces(t, cmd.Process.Pid)
	if len(paths) < 2*len(childScenarios(t)) {
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
	for _, pid := range held {
		eventually(t, fmt.Sprintf("process %d gone", pid), func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
			return errors.Is(err, os.ErrNotExist)
		})
	}
	waitGone(t, handles, handlesErr)
}

// labChild is busy with every scenario until it is killed.
func labChild(t *testing.T) {
	// It ends by itself should nobody kill it.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var setups []*Setup
	for _, s := range childScenarios(t) {
		setup, err := s.Prepare(ctx)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := setup.Hold()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("held by", pid)
		setups = append(setups, setup)
	}
	var started, all sync.WaitGroup
	for _, setup := range setups {
		started.Add(1)
		all.Go(func() {
			_, err := setup.Provoke(ctx, 1)
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
