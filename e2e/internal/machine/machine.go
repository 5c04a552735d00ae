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
	args := append(accelerator(),
		"-machine", "pc", "-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MB),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.Vmlinuz, "-initrd", m.Initrd, "-append", "console=ttyS0 panic=-1 quiet",
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

// Tail is the end of what the kernel printed.
func (m Machine) Tail() string {
	b, err := os.ReadFile(m.Console)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(b), "\r", "")), "\n")
	return "console: " + strings.Join(lines[max(0, len(lines)-40):], "\n")
}

var virtualization = regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`)

// accelerator is KVM only where the processor itself has it: nested below
// something that merely shows /dev/kvm, these kernels hang. Emulation without
// cx16 taken away from -cpu max crashes now and then.
func accelerator() []string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		_ = kvm.Close()
	}
	if err == nil && virtualization.Match(info) {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,-cx16"}
}
