package testkit

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"sync"
)

// iproute2s are the answers of [Iproute2] by path: in an emulated machine a process
// takes a fifth of a second, and these are asked before each.
var iproute2s sync.Map

// Iproute2 says why one of iproute2's programs (ip, tc, ss, nstat) cannot be
// used, or nil. That of busybox has the name only.
func Iproute2(name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	ask, _ := iproute2s.LoadOrStore(path, sync.OnceValue(func() error {
		out, err := exec.Command(path, "-V").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "iproute2") {
			return fmt.Errorf("%s is not the one of iproute2", path)
		}
		return nil
	}))
	return ask.(func() error)()
}

// Batch gives lines to ip or tc, each a command without the program, and
// returns what they printed. The program may have options behind it, as in
// "ip -6". The first line that fails ends it; the error names it by its number.
func Batch(program string, lines ...string) ([]byte, error) {
	words := strings.Fields(program)
	if err := Iproute2(words[0]); err != nil {
		return nil, err
	}
	cmd := exec.Command(words[0], append(words[1:], "-batch", "-")...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var said, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complaint
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s -batch: %w: %s of\n%s", program, err, bytes.TrimSpace(complaint.Bytes()), strings.Join(lines, "\n"))
	}
	return said.Bytes(), nil
}
