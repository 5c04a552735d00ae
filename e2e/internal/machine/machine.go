// Package machine runs one virtual machine from a kernel and an initramfs to
// its end.
//
// It must not know what the machine does, nor let it live longer than asked.
package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is what to start.
type Machine struct {
	Vmlinuz, Initrd string
	// Console is the file that takes what the kernel prints.
	Console  string
	CPUs, MB int
}

// Run starts the machine, hands each line from its second serial port to
// line, and returns when it has powered off, or kills it when ctx ends.
func (m Machine) Run(ctx context.Context, line func(string)) error {
	accel, params := accelerator()
	args := append(accel,
		"-machine", "pc", "-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MB),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.Vmlinuz, "-initrd", m.Initrd, "-append", "console=ttyS0 panic=-1 quiet"+params,
		"-serial", "file:"+m.Console, "-serial", "stdio")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	// It must not outlive a test run that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start machine: %w (apt-get install qemu-system-x86)", err)
	}
	rerr := readLines(out, line)
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("machine killed: %w\n%s", context.Cause(ctx), m.Tail())
	case err != nil || rerr != nil:
		return fmt.Errorf("machine ended: %w\n%s%s", errors.Join(err, rerr), &said, m.Tail())
	}
	return nil
}

func readLines(r io.Reader, line func(string)) error {
	br := bufio.NewReader(r)
	for {
		s, err := br.ReadString('\n')
		if s != "" {
			line(strings.TrimSuffix(s, "\n"))
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// trouble begins what a kernel prints when it goes down.
var trouble = regexp.MustCompile(`BUG: |Oops|int3: 0000|general protection|Kernel panic`)

// Tail is the end of what the kernel printed: the last 40 lines, or all from
// where it went down.
func (m Machine) Tail() string {
	b, err := os.ReadFile(m.Console)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(b), "\r", "")), "\n")
	from := max(0, len(lines)-40)
	if down := slices.IndexFunc(lines, trouble.MatchString); down >= 0 {
		from = min(from, down)
	}
	return "console: " + strings.Join(lines[from:], "\n")
}

// EmulatorFailed says whether the emulator took the machine down, by running a
// breakpoint that the kernel had already replaced: as it attaches to a
// tracepoint the kernel changes its own code (arch/x86/kernel/alternative.c,
// text_poke_bp), while another processor's code is being translated.
func (m Machine) EmulatorFailed() bool {
	b, err := os.ReadFile(m.Console)
	return err == nil && !hasKVM() && bytes.Contains(b, []byte("int3: 0000 ["))
}

var virtualization = regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`)

// accelerator is KVM only where the processor itself has it: nested below
// something that merely shows /dev/kvm, these kernels hang. Emulation without
// cx16 taken away from -cpu max crashes now and then. What else is taken away is
// slow there: with erms the kernel copies byte by byte, smap ends a translated
// block at each access to a program's memory, la57 makes page tables deeper, and
// the state of avx is saved by a function at each switch and each lazy binding
// of the dynamic linker. So are mitigations for what an emulator does not have,
// pages that are zeroed twice, and waiting for RCU with each namespace. By itself
// the kernel does not trust the emulated TSC, and takes a clock whose every
// reading leaves the guest. It also panics where its timer does not tick in time
// (arch/x86/kernel/apic/io_apic.c, check_timer), which is so where the emulator has
// to wait for a processor.
func accelerator() (args []string, params string) {
	if hasKVM() {
		return []string{"-accel", "kvm", "-cpu", "host"}, ""
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-erms,-smap,-smep,-pku,-la57,-umip,-xsave,-avx,-avx2"},
		" clocksource=tsc tsc=reliable mitigations=off nopti no_timer_check init_on_alloc=0 rcupdate.rcu_expedited=1"
}

func hasKVM() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !virtualization.Match(info) {
		return false
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = kvm.Close()
	return true
}
