package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/e2e/internal/guest"
)

// Every kernel asks whydrop itself and loses packets; the rest is for those that
// run everything.
func TestBasis(t *testing.T) {
	l := &load{scenarios: []string{"no-such", "udp-rcvbuf", "xdp-drop"}, jobs: []guest.Job{
		{Name: jobDoctor},
		{Name: jobCast},
		labJob([]string{"no-such", "udp-rcvbuf", "xdp-drop"}),
		{Name: "internal/cli"},
		{Name: "internal/probe/skbdrop"},
	}}
	some := l.basis()
	var names []string
	for _, j := range some.jobs {
		names = append(names, j.Name)
	}
	if want := []string{jobDoctor, jobCast, jobLab, "internal/probe/skbdrop"}; !slices.Equal(names, want) {
		t.Errorf("jobs %q, want %q", names, want)
	}
	if want := []string{"udp-rcvbuf", "xdp-drop"}; !slices.Equal(some.scenarios, want) {
		t.Errorf("scenarios %q, want %q", some.scenarios, want)
	}
	if args := strings.Join(some.jobs[2].Args, " "); !strings.Contains(args, "lab run udp-rcvbuf,xdp-drop ") || !strings.HasSuffix(args, "--no-remedy") {
		t.Errorf("lab is run as %s", args)
	}
	if slices.ContainsFunc((&load{jobs: l.jobs}).basis().jobs, func(j guest.Job) bool { return j.Name == jobLab }) {
		t.Error("a lab without scenarios")
	}
}

func TestSet(t *testing.T) {
	var o options
	if err := o.set("trixie,forky", "forky", ""); err != nil || !slices.Equal(o.all, []string{"forky"}) {
		t.Errorf("all %q, %v", o.all, err)
	}
	if err := o.set("trixie,forky", "all", ""); err != nil || !slices.Equal(o.all, o.suites) {
		t.Errorf("all %q of %q, %v", o.all, o.suites, err)
	}
	if err := o.set("trixie", "forky", ""); err == nil {
		t.Error("a kernel that does not run should run everything")
	}
}

// Two machines share the work of a kernel that runs everything, and begin first.
func TestMachines(t *testing.T) {
	var o options
	if err := o.set("trixie,forky", "forky", ""); err != nil {
		t.Fatal(err)
	}
	l := &load{scenarios: []string{"xdp-drop"}, jobs: []guest.Job{{Name: jobDoctor}, labJob([]string{"xdp-drop"}), {Name: "internal/cli"}, {Name: "internal/probe/skbdrop"}}}
	var got []string
	for _, r := range o.machines(l, "", nil) {
		line := r.file() + ":"
		for _, j := range r.load.jobs {
			line += " " + j.Name
		}
		got = append(got, line)
	}
	want := []string{
		"forky-1-of-2: doctor lab internal/probe/skbdrop", "forky-2-of-2: internal/cli", "trixie: doctor lab internal/probe/skbdrop",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, jobs := range [][]guest.Job{{{Name: jobDoctor}, {Name: "internal/cli"}}, {{Name: jobDoctor}, {Name: "internal/lab"}}} {
		if parts := (&load{jobs: jobs}).split(); len(parts) != 1 || len(parts[0].jobs) != 2 {
			t.Errorf("%v is split into %d", jobs, len(parts))
		}
	}
}
