package main

import (
	"slices"
	"strings"

	"github.com/whydrop/whydrop/e2e/internal/guest"
)

// fullRooms are the rooms whose tests run only on kernels that run everything:
// they begin whole processes of whydrop, which takes most of the time in emulated
// machines, and what they ask the kernel the rooms below them ask everywhere.
var fullRooms = []string{"internal/cli", "internal/lab", "internal/testkit"}

// basisScenarios are the losses that every kernel is given: one of each place
// where packets get lost and of each way to count it.
var basisScenarios = []string{
	"xdp-drop", "tc-ingress-drop", "bridge-stp-state", "nf-rule-drop", "ct-table-full", "nfqueue-no-listener",
	"ip-martian-source", "ip-martian-dest", "ip-rpfilter", "ip-not-local", "ip-fwd-no-route", "ip-fwd-blackhole", "ip-ttl", "ip-mtu-df",
	"l2-otherhost", "vlan-unconfigured", "ip-header", "frag-timeout", "frag-memory", "ip-unknown-proto",
	"udp-csum", "udp-noport", "tcp-csum", "tcp-no-listener", "icmp-bad", "icmp-echo-ignored",
	"udp-rcvbuf", "udp-sockfilter", "tcp-accept-queue", "tcp-syn-queue", "out-no-route", "nf-output-drop", "neigh-failed", "neigh-queue-full",
	"tc-egress-drop", "qdisc-fifo-limit", "qdisc-shaper", "veth-peer-mtu", "tun-full-ring",
}

// basis is the part of a load that every kernel is given: what whydrop itself
// says, all rooms but those above, and the scenarios above without their remedies.
func (l *load) basis() *load {
	some := &load{files: l.files}
	for _, s := range l.scenarios {
		if slices.Contains(basisScenarios, s) {
			some.scenarios = append(some.scenarios, s)
		}
	}
	for _, j := range l.jobs {
		switch {
		case j.Name == jobLab:
			if len(some.scenarios) > 0 {
				some.jobs = append(some.jobs, labJob(some.scenarios, "--no-remedy"))
			}
		case !slices.Contains(fullRooms, j.Name):
			some.jobs = append(some.jobs, j)
		}
	}
	return some
}

// otherHalf are the rooms whose tests take about as long as all other jobs, so
// that two machines share the work.
var otherHalf = []string{"internal/cli", "internal/counter", "internal/fact"}

// split makes two loads of one; all of it is one where either would be empty.
func (l *load) split() []*load {
	halves := []*load{{files: l.files, scenarios: l.scenarios}, {files: l.files}}
	for _, j := range l.jobs {
		i := 0
		if slices.Contains(otherHalf, j.Name) {
			i = 1
		}
		halves[i].jobs = append(halves[i].jobs, j)
	}
	if !slices.ContainsFunc(halves[0].jobs, func(j guest.Job) bool { return !onlyAsks(j.Name) }) || len(halves[1].jobs) == 0 {
		return []*load{l}
	}
	return halves
}

// onlyAsks says whether a job only asks the kernel what it has, in no time.
func onlyAsks(job string) bool { return job == jobDoctor || job == jobCast || job == jobQdisc }

// labJob runs scenarios in one process.
func labJob(scenarios []string, flags ...string) guest.Job {
	args := []string{"timeout", labTimeout, "whydrop", "lab", "run", strings.Join(scenarios, ","), "--whole-host", "-j"}
	return guest.Job{Name: jobLab, Dir: "/", Args: append(args, flags...)}
}
