//go:build root

package cli

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
	"golang.org/x/sys/unix"
)

// TestFqByDropMonitor: from the summaries of the drop monitor, which tell a place
// and a number and nothing else, and from counters, comes the right cause on the
// right device.
func TestFqByDropMonitor(t *testing.T) {
	testkit.NeedConfig(t, "CONFIG_NET_SCH_FQ")
	testkit.NeedRoot(t)
	if !testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		return
	}
	host, to := fqPair(t)
	o := observingBy(t, host, observe.ChooseDropmonSummary, func() error { return sendMany(host, to, fqSent) })
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	ask(t.Context(), &o, k)
	for _, c := range o.Counts {
		if c.Reason != (record.Reason{}) || c.NetNS.Inode != 0 || c.Device.Index != 0 || c.IPProto != 0 {
			t.Errorf("a summary tells a place alone, not %+v", c.Key)
		}
	}
	d := diagnose.Run(&o, k, diagnose.Options{All: true})
	i := slices.IndexFunc(d.Findings, func(f record.Finding) bool { return f.Cause == "qdisc-fq-flow-limit" })
	if i < 0 {
		t.Fatalf("not found:\n%s%s", describe(d.Findings), evidenceOf(o, d))
	}
	f := d.Findings[i]
	if f.Drops < fqSent-fqFlowLimit-20 || f.Drops > fqSent || f.Confidence != record.ConfidenceCertain || f.LostBy != "drops" {
		t.Errorf("%d drops of %d sent, %s, by %s", f.Drops, fqSent, f.Confidence, f.LostBy)
	}
	if len(f.Devices) != 1 || !strings.HasPrefix(f.Devices[0], "fq0 ") {
		t.Errorf("devices %v", f.Devices)
	}
	if len(f.Remedy) == 0 || !strings.Contains(f.Remedy[0].Command, fmt.Sprintf("flow_limit %d", 2*fqFlowLimit)) {
		t.Errorf("remedy %+v", f.Remedy)
	}
	left := []string{"Udp.SndbufErrors", "Ip.OutDiscards", "fq.flows_plimit", "qdisc.drops"}
	for _, e := range d.Ledger.Entries {
		if j := slices.Index(left, e.Counter); j >= 0 && e.Delta == f.Drops && e.Drops == f.Drops && e.Chain == 1 {
			left = slices.Delete(left, j, j+1)
		}
	}
	if len(left) > 0 {
		t.Errorf("not in one chain: %v", left)
	}
	if t.Failed() {
		t.Log(evidenceOf(o, d))
	}
}

// TestAutoWithoutBTF: where eBPF does not work the drop monitor is taken, and
// where the kernel has none the counters; each says so.
func TestAutoWithoutBTF(t *testing.T) {
	testkit.NeedRoot(t)
	has := testkit.Wants(t, "CONFIG_NET_DROP_MONITOR")
	hide := "mount --bind " + t.TempDir() + " /sys/kernel/btf"
	r := finish(t, inMounts(t, hide, "diagnose", "--duration", "300ms", "-j"))
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		t.Fatalf("%v\n%s%s", err, r.out, r.err)
	}
	want, code := []string{"skbdrop failed", "dropmon ok", "counters"}, exitOK
	if !has {
		want[1], code = "dropmon failed", exitPartial
	}
	var got []string
	for _, s := range d.Sources {
		got = append(got, s.Name+" "+string(s.State))
		if s.State == record.SourceFailed && s.Why == "" {
			t.Errorf("%s failed, and does not say why", s.Name)
		}
	}
	for i, w := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], w) {
			t.Errorf("sources %v, want %v", got, want)
			break
		}
	}
	if r.code != code || !strings.Contains(r.err, "BTF") || !strings.Contains(d.Sources[0].Why, "BTF") {
		t.Errorf("exit status %d, want %d\n%s", r.code, code, r.err)
	}
	r = finish(t, inMounts(t, hide, "doctor"))
	works := map[bool]int{true: exitOK, false: exitUnavailable}
	if line, _, _ := strings.Cut(r.out, "\n"); r.code != works[has] || has != strings.HasPrefix(line, "source: dropmon is ok") || !strings.Contains(r.out, "CONFIG_DEBUG_INFO_BTF") {
		t.Errorf("exit status %d\n%s", r.code, r.out)
	}
}

// TestEachByDropMonitor shows single packets as the drop monitor tells them.
func TestEachByDropMonitor(t *testing.T) {
	testkit.NeedRoot(t)
	if !testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		r := run(t, "watch", "--source", "dropmon", "--duration", "1s")
		oneLine(t, r, "CONFIG_NET_DROP_MONITOR")
		return
	}
	setup := prepared(t, "udp-noport")
	c := command(t, "watch", "--each", "--source", "dropmon", "--count", "3")
	var out, errOut console
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	for ended := false; !ended; { // when the monitor has started nothing tells
		if _, err := setup.Provoke(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if ended = true; err != nil {
				t.Fatalf("%v\n%s%s", err, out.String(), errOut.String())
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
	lines := strings.Count(out.String(), "udp 192.0.2.2:40000 > 192.0.2.1:7777")
	if lines != 3 || strings.Contains(out.String(), "current task") || !strings.Contains(errOut.String(), "no link header") {
		t.Errorf("%d lines of 3:\n%s%s", lines, out.String(), errOut.String())
	}
}

// TestMonitorIsPutBack: nor is the drop monitor left running where a terminal goes
// away, or somebody is impatient.
func TestMonitorIsPutBack(t *testing.T) {
	testkit.NeedRoot(t)
	if !testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		return // TestSignalsWithDropMonitor
	}
	conn, err := dropmon.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, list := range map[string][]syscall.Signal{
		"terminal": {unix.SIGHUP}, "impatient": {unix.SIGINT, unix.SIGINT}, "quit": {unix.SIGQUIT},
	} {
		c := command(t, "watch", "--source", "dropmon")
		var errOut console
		c.Stderr = &errOut
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill() })
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			on, err := conn.Running()
			if on {
				break
			}
			if err != nil || time.Now().After(end) {
				t.Fatalf("%s: it does not begin: %v %s", name, err, errOut.String())
			}
		}
		for _, sig := range list {
			if err := c.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, errOut.String())
		}
		if r := here(t, "doctor", "--recover-dropmon"); !strings.HasPrefix(r.out, "nothing was left running") {
			t.Errorf("%s: %s%s", name, r.out, r.err)
		}
	}
}

// TestCountersAloneFindLoss: without any source of drops a loss that counters
// show is found, and nothing is said to have been seen.
func TestCountersAloneFindLoss(t *testing.T) {
	testkit.NeedRoot(t)
	host, peer := newNS(t), newNS(t)
	joined(t, host, peer)
	o := observingBy(t, host, observe.ChooseCounters, func() error {
		return sendMany(peer, netip.MustParseAddrPort("198.51.100.1:9"), 40)
	})
	if o.Accounting != (record.Accounting{}) || len(o.Counts) != 0 {
		t.Errorf("drops out of nowhere: %+v", o.Accounting)
	}
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	d := diagnose.Run(&o, k, diagnose.Options{})
	i := slices.IndexFunc(d.Findings, func(f record.Finding) bool { return strings.Contains(f.Title, "Udp.NoPorts +40") })
	if i < 0 || !strings.Contains(d.Findings[i].Title, "drops were not watched") || d.Findings[i].LostBy != "counters" {
		t.Errorf("findings:\n%s", describe(d.Findings))
		for _, f := range d.Findings {
			t.Log(f.Title)
		}
	}
}
