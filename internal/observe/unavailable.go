package observe

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/whydrop/whydrop/internal/kernel"
)

// unavailable says in one line why nothing can be watched here. The error is
// what was tried; the host's own answers say what it lacks.
func unavailable(host kernel.Host, err error) error {
	u := &UnavailableError{Err: err}
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		// Its errno is EACCES too, but no privilege would help.
		u.Missing = "this kernel's verifier refuses the eBPF program: " + err.Error()
		u.Fix = "please report it with the output of `whydrop doctor -j`"
	case errors.Is(err, kernel.ErrNoBTF):
		u.Missing = err.Error()
		u.Fix = "use a kernel that publishes its types in /sys/kernel/btf/vmlinux"
	case errors.Is(err, kernel.ErrNoTracepoint):
		u.Missing = err.Error()
		u.Fix = "`whydrop doctor` says what else is missing"
	case errors.Is(err, os.ErrPermission):
		u.Missing, u.Fix = denied(host)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, syscall.ENOSYS):
		u.Missing = err.Error()
		u.Fix = "Linux 5.8 or newer with CONFIG_BPF_SYSCALL and CONFIG_BPF_EVENTS has it"
	default:
		u.Missing = err.Error()
		u.Fix = "`whydrop doctor` says what this host allows"
	}
	return u
}

// denied finds out which of the host's refusals applies.
func denied(host kernel.Host) (missing, fix string) {
	var caps []string
	var other *kernel.Check
	for _, c := range host.Checks(context.Background()) {
		if c.State == kernel.StateYes {
			continue
		}
		switch c.Name {
		case "cap_bpf", "cap_perfmon":
			caps = append(caps, c.Title)
		case "user_namespace", "lockdown", "memlock":
			if c.State == kernel.StateNo && other == nil {
				other = &c
			}
		}
	}
	// In another user namespace the capabilities count for nothing.
	if other != nil && (caps == nil || other.Name == "user_namespace") {
		return other.Title + ": " + other.Why, other.Fix
	}
	if caps != nil {
		return "this process lacks " + strings.Join(caps, " and "),
			"run it as root (sudo whydrop), or with CAP_BPF, CAP_PERFMON, CAP_SYSLOG and CAP_NET_ADMIN"
	}
	return "the kernel refuses to load or attach the eBPF program, although the capabilities are there",
		"look for an LSM, seccomp or container policy that denies bpf(2)"
}
