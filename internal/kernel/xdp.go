package kernel

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNoXDPException says that the kernel does not tell of XDP programs that fail.
var ErrNoXDPException = errors.New("kernel has no tracepoints xdp:xdp_exception and xdp:xdp_redirect_err")

// XDPActions returns what an XDP program can return, as the kernel names it
// (XDP_ABORTED, XDP_DROP …), the name of 0 first. An error wraps
// ErrNoXDPException where the tracepoints are missing by which it tells of programs
// that fail, or where the first arguments are not device, program and action or,
// of the second, device, program, target and error (4.15 to 7.2,
// include/trace/events/xdp.h).
func (b *BTF) XDPActions() ([]string, error) {
	exception, err := b.tracepointArgs("xdp_exception")
	if err != nil {
		return nil, err
	}
	redirect, err := b.tracepointArgs("xdp_redirect_err")
	if err != nil {
		return nil, err
	}
	if len(exception) != 3 || !pointsTo(exception[0], "net_device") || !pointsTo(exception[1], "bpf_prog") ||
		len(redirect) < 4 || !pointsTo(redirect[0], "net_device") || !pointsTo(redirect[1], "bpf_prog") {
		return nil, fmt.Errorf("look up BTF types of tracepoints: %w", ErrNoXDPException)
	}
	values, err := enumValues(b.Spec, "xdp_action")
	if err != nil {
		return nil, err
	}
	names := make([]string, len(values))
	for _, v := range values {
		if int(v.Value) >= len(names) || names[v.Value] != "" {
			return nil, fmt.Errorf("BTF enum xdp_action: %s is %d of %d values", v.Name, v.Value, len(names))
		}
		names[v.Value] = v.Name
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("look up BTF enum xdp_action: %w", ErrNoXDPException)
	}
	return names, nil
}

func (c *checker) xdpException() Answer {
	if c.btfErr != nil {
		return unknown(c.btfErr)
	}
	actions, err := c.btf.XDPActions()
	switch {
	case errors.Is(err, ErrNoXDPException):
		return no("the kernel has no such tracepoints, or others", "Linux 5.10 or newer with CONFIG_BPF_SYSCALL=y")
	case err != nil:
		return unknown(err)
	}
	return yes(strings.Join(actions, ", "))
}
