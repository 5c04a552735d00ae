package fact

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

// igmpText is /proc/net/igmp of a host that joined 224.0.0.1 on lo and eth0, and
// 239.192.7.7 twice on eth0.
func igmpText() string {
	number := func(a, b, c, d byte) string {
		return fmt.Sprintf("%08X", binary.NativeEndian.Uint32([]byte{a, b, c, d}))
	}
	return "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n" +
		"1\tlo        :     1      V3\n\t\t\t\t" + number(224, 0, 0, 1) + "     1 0:00000000\t\t0\n" +
		"2\teth0      :     2      V3\n\t\t\t\t" + number(239, 192, 7, 7) + "     2 1:00000123\t\t1\n" +
		"\t\t\t\t" + number(224, 0, 0, 1) + "     1 0:00000000\t\t0\n"
}

const igmp6Text = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n" +
	"2    eth0            ff0200000000000000000001ff000001     3 00000004 0\n" +
	"3    odd             ff02                                 1 00000004 0\n"

func TestGroups(t *testing.T) {
	r := tree(t, map[string]string{
		"proc/thread-self/net/igmp": igmpText(), "proc/thread-self/net/igmp6": igmp6Text,
	})
	got := map[string]string{}
	for _, f := range r.Read(record.FactRequest{Kind: "groups"}, ns) {
		got[f.Name] = f.Value
		if f.Fields["group"]+" "+f.Fields["dev"] != f.Name {
			t.Errorf("%+v", f)
		}
	}
	want := map[string]string{
		"224.0.0.1 lo": "1", "239.192.7.7 eth0": "2", "224.0.0.1 eth0": "1",
		"ff02::1 lo": "1", "ff02::1:ff00:1 eth0": "3",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	without6 := tree(t, map[string]string{"proc/thread-self/net/igmp": "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"})
	if facts := without6.Read(record.FactRequest{Kind: "groups"}, ns); len(facts) != 1 || facts[0].Value != None {
		t.Errorf("without groups: %+v", facts)
	}
	if facts := (&Reader{root: t.TempDir()}).Read(record.FactRequest{Kind: "groups"}, ns); len(facts) != 1 || facts[0].Missing == "" {
		t.Errorf("without the file: %+v", facts)
	}
}

func FuzzGroups(f *testing.F) {
	f.Add(igmpText())
	f.Add(igmp6Text)
	f.Add("\t1 2\n2 a\n\tFFFFFFFF 18446744073709551616\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string, func(group)){parseIGMP, parseIGMP6} {
			parse(text, func(g group) {
				if !g.addr.IsValid() || g.device == "" {
					t.Errorf("%+v", g)
				}
			})
		}
	})
}
