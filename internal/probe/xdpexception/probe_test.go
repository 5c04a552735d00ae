package xdpexception

import "testing"

func TestCount(t *testing.T) {
	name := [16]int8{'e', 't', 'h', '0', 0, 'x'}
	long := [16]int8{0: -61, 1: -97}
	for i := 2; i < len(long); i++ {
		long[i] = 'a'
	}
	at := Key{NetNS: 4026531840, Ifindex: 3, Prog: 41}
	for _, c := range []struct {
		code          int32
		device        [16]int8
		action, errno uint32
		name          string
	}{
		{0, name, 0, 0, "eth0"},
		{5, name, 5, 0, "eth0"},
		{-100, name, 0, 100, "eth0"},
		{-4095, long, 0, 4095, "\xc3\x9faaaaaaaaaaaaaa"},
		{1, [16]int8{}, 1, 0, ""},
	} {
		k := xdpexceptionFailureKey{Netns: at.NetNS, Ifindex: at.Ifindex, Prog: at.Prog, Code: c.code}
		want := Count{Key: at, Device: c.name, Packets: 7}
		want.Action, want.Errno = c.action, c.errno
		if got := count(&k, &xdpexceptionFailure{Packets: 7, Device: c.device}); got != want {
			t.Errorf("%d: %+v, want %+v", c.code, got, want)
		}
	}
}
