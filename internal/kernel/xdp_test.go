package kernel

import (
	"errors"
	"slices"
	"testing"
)

// xdpActions72 is enum xdp_action of 7.2.
var xdpActions72 = []enumValue{{"XDP_ABORTED", 0}, {"XDP_DROP", 1}, {"XDP_PASS", 2}, {"XDP_TX", 3}, {"XDP_REDIRECT", 4}}

// xdpTracepoints adds xdp:xdp_exception and xdp:xdp_redirect_err, with that struct
// as their second argument, and enum xdp_action.
func (w *btfWriter) xdpTracepoints(prog string, actions ...enumValue) {
	const pointer, structure, constant, function = 2, 4, 10, 13
	dev := w.add("", pointer, 0, w.add("", constant, 0, w.add("net_device", structure, 0, 8)))
	second := w.add("", pointer, 0, w.add("", constant, 0, w.add(prog, structure, 0, 8)))
	number := w.add("int", 1, 0, 4, 32)
	for name, params := range map[string][]uint32{
		"xdp_exception":    {0, dev, 0, dev, 0, second, 0, number},
		"xdp_redirect_err": {0, dev, 0, dev, 0, second, 0, dev, 0, number, 0, number},
	} {
		proto := w.add("", function, uint32(len(params)/2), 0, params...)
		w.add("btf_trace_"+name, 8, 0, w.add("", pointer, 0, proto))
	}
	if len(actions) > 0 {
		w.enum("xdp_action", actions)
	}
}

func TestXDPActions(t *testing.T) {
	names := []string{"XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"}
	for name, c := range map[string]struct {
		add     func(*btfWriter)
		want    []string
		missing bool // else an error is of another kind
	}{
		"7.2":             {func(w *btfWriter) { w.xdpTracepoints("bpf_prog", xdpActions72...) }, names, false},
		"other order":     {func(w *btfWriter) { w.xdpTracepoints("bpf_prog", enumValue{"B", 1}, enumValue{"A", 0}) }, []string{"A", "B"}, false},
		"a hole":          {func(w *btfWriter) { w.xdpTracepoints("bpf_prog", enumValue{"A", 0}, enumValue{"C", 2}) }, nil, false},
		"a number twice":  {func(w *btfWriter) { w.xdpTracepoints("bpf_prog", enumValue{"A", 1}, enumValue{"B", 1}) }, nil, false},
		"no enum":         {func(w *btfWriter) { w.xdpTracepoints("bpf_prog") }, nil, true},
		"other argument":  {func(w *btfWriter) { w.xdpTracepoints("bpf_map", xdpActions72...) }, nil, true},
		"fewer arguments": {func(w *btfWriter) { w.tracepoint("xdp_exception", 2) }, nil, true},
		"none":            {func(w *btfWriter) { w.tracepoint("xdp_redirect", 3) }, nil, true},
	} {
		w := newVmlinux()
		c.add(w)
		b := &BTF{Spec: specOf(t, w)}
		got, err := b.XDPActions()
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) || errors.Is(err, ErrNoXDPException) != c.missing {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}
