// Package testkit holds helpers for tests: privileges, earned skips, golden
// files, private network namespaces, and a storm of drops.
//
// Only tests import it. It must not know anything about whydrop's own probes
// or records, so that it cannot agree with them by construction.
package testkit

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf/btf"
	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// NeedRoot fails the test when it does not run as root. Tests that need root
// have the build tag root, so whoever runs them asked for it.
func NeedRoot(t testing.TB) {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		t.Fatalf("this test needs root, not uid %d: run it as root or without -tags root", uid)
	}
}

// InNetNS runs fn on an OS thread inside a new network namespace, with its
// loopback up and IPv6 disabled, and removes the namespace afterwards.
// Goroutines that fn starts are not in it, and its files under /proc/net are
// found at /proc/thread-self/net. fn may call t.Fatal.
func InNetNS(t testing.TB, fn func(ns *netlab.Namespace)) {
	t.Helper()
	NeedRoot(t)
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	}()
	err = ns.Do(func() error {
		fn(ns)
		return nil
	})
	if t.Failed() {
		t.FailNow() // fn may have ended its own goroutine only
	}
	if t.Skipped() {
		t.SkipNow()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// SkipBefore looks at the error of something that Linux has had since version
// (as in "5.17"). Without an error it does nothing. With one it skips the test
// where the kernel is older, and fails it where the kernel should have it.
func SkipBefore(t testing.TB, version, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatalf("uname: %v", err)
	}
	release := unix.ByteSliceToString(uts.Release[:])
	older, verr := olderThan(release, version)
	switch {
	case verr != nil:
		t.Fatal(verr)
	case older:
		t.Skipf("%s came with Linux %s, this is %s: %v", what, version, release, err)
	default:
		t.Fatalf("%s is missing although it came with Linux %s and this is %s: %v", what, version, release, err)
	}
}

// olderThan says whether a kernel's release is of a version before another.
func olderThan(release, version string) (bool, error) {
	r, err := parseVersion(release)
	if err != nil {
		return false, err
	}
	v, err := parseVersion(version)
	if err != nil {
		return false, err
	}
	return r[0] < v[0] || r[0] == v[0] && r[1] < v[1], nil
}

// parseVersion returns the first two numbers of 6.18.44-whatever.
func parseVersion(s string) (v [2]uint64, err error) {
	major, rest, _ := strings.Cut(s, ".")
	minor := rest
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		minor = rest[:end]
	}
	for i, part := range []string{major, minor} {
		if v[i], err = strconv.ParseUint(part, 10, 32); err != nil {
			return v, fmt.Errorf("kernel version %q: %w", s, err)
		}
	}
	return v, nil
}

// HidesPID1 says whether this kernel skips BPF programs, without counting it,
// while PID 1 runs or is interrupted. No release of Linux does; some sandboxes
// are patched to. What a timer drops then is seen by nobody now and then.
func HidesPID1() bool {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return false
	}
	var aux *btf.Struct
	if err := spec.TypeByName("bpf_prog_aux", &aux); err != nil {
		return false
	}
	return slices.ContainsFunc(aux.Members, func(m btf.Member) bool { return m.Name == "init_owned" })
}

// InMachine says whether the test runs in a virtual machine of e2e, which is
// thrown away: it may change what the whole machine has.
func InMachine() bool { return os.Getenv("WHYDROP_MACHINE") == "1" }
