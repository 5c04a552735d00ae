package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

// Host says where the files of the kernel are. The zero value is the live
// system.
type Host struct {
	// Root stands in front of /proc, /sys, /boot, /lib and /run. Only tests
	// set it. System calls ask the live kernel whatever Root says.
	Root string
}

func (h Host) path(name string) string { return filepath.Join(h.Root, name) }

// line reads a file of one short line, without the line end.
func (h Host) line(name string) (string, error) {
	b, err := os.ReadFile(h.path(name))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// Release returns what uname -r prints, from /proc/sys/kernel/osrelease.
func (h Host) Release() (string, error) {
	s, err := h.line("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	return s, nil
}

// Version is the numeric start of a kernel release. Distributions backport:
// a version never proves that a feature is missing when the kernel itself can
// be asked.
type Version struct{ Major, Minor, Patch int }

// ParseVersion reads the start of a release: 6.18.44-fc, 6.1.0-50-cloud-amd64,
// 7.2. Only major and minor are required.
func ParseVersion(release string) (Version, error) {
	numeric := release
	if end := strings.IndexFunc(release, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); end >= 0 {
		numeric = release[:end]
	}
	parts := strings.Split(strings.TrimSuffix(numeric, "."), ".")
	if len(parts) < 2 {
		return Version{}, fmt.Errorf("kernel release %q: want MAJOR.MINOR[.PATCH]", release)
	}
	var n [3]int
	for i, part := range parts[:min(len(parts), len(n))] {
		v, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("kernel release %q: %w", release, err)
		}
		n[i] = int(v)
	}
	return Version{n[0], n[1], n[2]}, nil
}

// AtLeast says whether v is major.minor or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Identity says which machine and kernel this is. Host.Program and the fields
// of record.Kernel about drop reasons are left to the caller. An error leaves
// the fields empty that could not be read and the others filled.
func (h Host) Identity() (record.Host, record.Kernel, error) {
	var (
		host record.Host
		kern record.Kernel
		errs []error
	)
	for _, f := range []struct {
		name string
		to   *string
	}{
		{"/proc/sys/kernel/hostname", &host.Hostname},
		{"/proc/sys/kernel/random/boot_id", &host.BootID},
		{"/proc/sys/kernel/osrelease", &kern.Release},
		{"/proc/sys/kernel/version", &kern.Version},
	} {
		s, err := h.line(f.name)
		if err != nil {
			errs = append(errs, fmt.Errorf("identify host: %w", err))
			continue
		}
		*f.to = s
	}
	// /proc/sys/kernel/arch exists only since 6.1.
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		errs = append(errs, fmt.Errorf("uname: %w", err))
	}
	kern.Machine = unix.ByteSliceToString(uts.Machine[:])
	cpus, err := h.PossibleCPUs()
	if err != nil {
		errs = append(errs, err)
	}
	host.CPUs = cpus
	return host, kern, errors.Join(errs...)
}

// PossibleCPUs returns how many CPUs could ever be online, which is how many
// rows a per-CPU map has, from /sys/devices/system/cpu/possible.
func (h Host) PossibleCPUs() (int, error) {
	s, err := h.line("/sys/devices/system/cpu/possible")
	if err != nil {
		return 0, fmt.Errorf("count possible CPUs: %w", err)
	}
	n, err := parseCPUList(s)
	if err != nil {
		return 0, fmt.Errorf("count possible CPUs: %w", err)
	}
	return n, nil
}

// parseCPUList counts the CPUs of a list such as 0-3,8-11 (the format of
// bitmap_print_to_pagebuf, lib/bitmap-str.c).
func parseCPUList(s string) (int, error) {
	n := 0
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		lo, err := strconv.ParseUint(first, 10, 16)
		hi := lo
		if err == nil && isRange {
			hi, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || hi < lo {
			return 0, fmt.Errorf("cpu list %q: bad part %q", s, part)
		}
		n += int(hi-lo) + 1
	}
	return n, nil
}

// ClockOffset returns CLOCK_REALTIME − CLOCK_MONOTONIC: what to add to a
// kernel time to get the wall clock since 1970. It is the best of a few
// samples, wrong by half the time that one clock read takes (well below a
// microsecond).
//
// The offset is a fact of the moment: CLOCK_MONOTONIC stands still while the
// host is suspended, and setting the clock moves only CLOCK_REALTIME. NTP's
// slewing changes both alike. Take it at the start of a window, and again when
// a long one ends.
func ClockOffset() (time.Duration, error) {
	var best, offset int64 = 1<<63 - 1, 0
	for range 5 {
		var before, wall, after unix.Timespec
		err := errors.Join(
			unix.ClockGettime(unix.CLOCK_MONOTONIC, &before),
			unix.ClockGettime(unix.CLOCK_REALTIME, &wall),
			unix.ClockGettime(unix.CLOCK_MONOTONIC, &after),
		)
		if err != nil {
			return 0, fmt.Errorf("read clocks: %w", err)
		}
		if took := after.Nano() - before.Nano(); took < best {
			best = took
			offset = wall.Nano() - before.Nano() - took/2
		}
	}
	return time.Duration(offset), nil
}
