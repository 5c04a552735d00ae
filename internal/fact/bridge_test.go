package fact

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// vlanMessage is a port of a bridge with these struct bridge_vlan_info, each a
// pair of flags and number.
func vlanMessage(infos ...[2]uint16) message {
	list := message{}
	for _, i := range infos {
		list = list.Attr(2, message{}.U16(i[0]).U16(i[1]))
	}
	return message{}.U8(unix.AF_BRIDGE, 0).U16(1).U32(7).U32(unix.IFF_UP).U32(0).
		Text(unix.IFLA_IFNAME, "port0").Attr(unix.IFLA_AF_SPEC, list.Attr(1, []byte{1}))
}

func TestParseVLANs(t *testing.T) {
	index, v, err := parseVLANs(vlanMessage([2]uint16{2 | 4, 1}, [2]uint16{8, 7}, [2]uint16{16, 9}, [2]uint16{0, 40}))
	if err != nil || index != 7 || v.pvid != 1 {
		t.Errorf("device %d, %+v, %v", index, v, err)
	}
	if d := gocmp.Diff([]string{"1", "7-9", "40"}, v.list); d != "" {
		t.Error(d)
	}
	m := vlanMessage().Attr(unix.IFLA_AF_SPEC, message{}.Attr(2, []byte{1, 2, 3})) // not four bytes
	if _, v, err := parseVLANs(m); err != nil || v.list != nil || v.pvid != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestCheckFDB(t *testing.T) {
	for arg, good := range map[string]bool{
		"02:00:00:00:00:01 br0": true, "02:00:00:00:00:01": false, "br0 02:00:00:00:00:01": false, "": false,
		"02:00:00:00:00:01 a/b": false, "02:00:00:00:00:01 br0 x": false, "02:00:00:00:00:00:00:01 br0": false,
	} {
		if err := Check("bridge-fdb", arg); (err == nil) != good {
			t.Errorf("%q: %v", arg, err)
		}
	}
}

// mirredMessage is an action of a filter that sends packets to a device.
func mirredMessage(eaction, index, overlimits uint32) message {
	return message{}.Text(1, "mirred").
		Attr(4, message{}.Attr(3, words(0, 0, 0, 0, overlimits))).
		Attr(2, message{}.Attr(2, words(1, 0, 4, 1, 1, eaction, index)))
}

func TestParseFilterActions(t *testing.T) {
	options := message{}.Attr(5, nil).Attr(7, message{}.
		Attr(1, mirredMessage(2, 5, 0)).Attr(2, mirredMessage(1, 6, 20)).Attr(3, message{}.Text(1, "gact")))
	list, err := parseFilterActions("u32", options)
	want := []action{{kind: "mirred", mirred: "egress mirror", index: 5}, {kind: "mirred", mirred: "egress redirect", index: 6, overlimits: 20}, {kind: "gact"}}
	if d := gocmp.Diff(want, list, gocmp.AllowUnexported(action{})); d != "" || err != nil {
		t.Errorf("%v: %s", err, d)
	}
	if list, err := parseFilterActions("none-such", options); list != nil || err != nil {
		t.Errorf("%+v, %v", list, err)
	}
	// Too short for their structures: neither a device nor a number.
	short := message{}.Attr(7, message{}.Attr(1, message{}.Text(1, "mirred").
		Attr(4, message{}.Attr(3, num(1))).Attr(2, message{}.Attr(2, num(1)))))
	list, err = parseFilterActions("u32", short)
	if d := gocmp.Diff([]action{{kind: "mirred"}}, list, gocmp.AllowUnexported(action{})); d != "" || err != nil {
		t.Errorf("%v: %s", err, d)
	}
	// A device that is gone.
	f := filter{actions: []action{{kind: "mirred", mirred: "ingress redirect", overlimits: 3}}}
	out := fields{}
	if err := f.addActions(out); err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(fields{"actions": "mirred ingress redirect", "redirect": None, "redirect_overlimits": "3"}, out); d != "" {
		t.Error(d)
	}
}
