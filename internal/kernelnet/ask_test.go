package kernelnet

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestAsk asks for devices, of which every namespace has one.
func TestAsk(t *testing.T) {
	device := func(index uint32) Message { return Message{}.U32(0).U32(index).U32(0).U32(0) } // struct ifinfomsg
	ask := func(flags int, index uint32, each func([]byte) error) error {
		return Ask(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.RTM_NEWLINK, flags, device(index), each)
	}
	var names []string
	add := func(b []byte) error {
		a, err := ParseAttrs(b, unix.SizeofIfInfomsg)
		names = append(names, a.Text(unix.IFLA_IFNAME))
		return err
	}
	if err := ask(unix.NLM_F_DUMP, 0, add); err != nil || len(names) == 0 || names[0] != "lo" {
		t.Errorf("all: %q, %v", names, err)
	}
	names = nil
	if err := ask(0, 1, add); err != nil || len(names) != 1 || names[0] != "lo" {
		t.Errorf("one: %q, %v", names, err)
	}
	if err := ask(0, 1<<31-1, add); !errors.Is(err, unix.ENODEV) || len(names) != 1 {
		t.Errorf("none: %q, %v", names, err)
	}
	bad := errors.New("bad")
	for _, flags := range []int{0, unix.NLM_F_DUMP} {
		for err, want := range map[error]error{bad: bad, ErrEnough: nil} {
			n := 0
			got := ask(flags, 1, func([]byte) error { n++; return err })
			if !errors.Is(got, want) || n != 1 {
				t.Errorf("%v: %v after %d", err, got, n)
			}
		}
	}
	begun := 0
	err := Dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.RTM_NEWLINK, device(0), func() { begun++ }, func([]byte) error { return nl.ErrDumpInterrupted })
	if err != nil || begun != 3 {
		t.Errorf("a list that keeps changing: %v after %d attempts", err, begun)
	}
}

func TestEnd(t *testing.T) {
	refused := int32(-int32(unix.EPERM))
	for _, tt := range []struct {
		b       []byte
		changed bool
		want    error
	}{
		{nil, false, nil},
		{Message{}.U32(0), false, nil},
		{Message{}.U32(0), true, nl.ErrDumpInterrupted},
		{Message{}.U32(uint32(refused)), true, unix.EPERM},
		{[]byte{0xff, 0xff}, false, nil},
	} {
		if got := end(tt.b, tt.changed); !errors.Is(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.b, got, tt.want)
		}
	}
}

func TestFamilies(t *testing.T) {
	families, err := Families()
	if control := families["nlctrl"]; err != nil || control.ID != nl.GENL_ID_CTRL || control.Version == 0 {
		t.Errorf("%+v, %v", families, err)
	}
	n := 0
	err = families["nlctrl"].Ask(nl.GENL_CTRL_CMD_GETFAMILY, 0, Message{}.Text(nl.GENL_CTRL_ATTR_FAMILY_NAME, "nlctrl"), func(attrs []byte) error {
		n++
		a, err := ParseAttrs(attrs, 0)
		if a.Text(nl.GENL_CTRL_ATTR_FAMILY_NAME) != "nlctrl" {
			t.Errorf("answer %x", attrs)
		}
		return err
	})
	if err != nil || n != 1 {
		t.Errorf("%d answers, %v", n, err)
	}
	// Of a message that is not whole nothing is made up.
	got := map[string]Family{}
	family := Message{}.Text(nl.GENL_CTRL_ATTR_FAMILY_NAME, "x").Attr(nl.GENL_CTRL_ATTR_FAMILY_ID, Message{}.U16(33)).Attr32(nl.GENL_CTRL_ATTR_VERSION, 2)
	for _, n := range []int{3, 5, 9, 13} {
		if err := addFamily(got, family[:n:n]); !errors.Is(err, ErrShort) || len(got) > 0 {
			t.Errorf("%d bytes: %+v, %v", n, got, err)
		}
	}
	if err := addFamily(got, family); err != nil || got["x"] != (Family{33, 2}) {
		t.Errorf("%+v, %v", got, err)
	}
}
