package counter

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// stringSets are the kernel's names for what is in the groups.
func stringSets(t testing.TB) map[uint32][]string {
	t.Helper()
	sets := map[uint32][]string{}
	for _, m := range netdevsim(t, "ethtool-strset") {
		if err := parseStringSets(m, sets); err != nil {
			t.Fatal(err)
		}
	}
	return sets
}

func TestParseGroupsSample(t *testing.T) {
	sets := stringSets(t)
	if d := cmp.Diff([]string{"eth-phy", "eth-mac", "eth-ctrl", "rmon"}, sets[setStandard]); d != "" {
		t.Error(d)
	}
	messages := netdevsim(t, "ethtool-groups")
	if d := cmp.Diff([]uint32{17, 18, 19, 20, 17, 18, 19, 20}, setsOf(messages)); d != "" {
		t.Error(d)
	}
	var s Snapshot
	s.addParsed(groupSource, messages, func(m []byte) ([]Value, error) { return parseGroups(m, sets) })
	s.addParsed(pauseSource, netdevsim(t, "ethtool-pause"), parsePause)
	s.addParsed(fecSource, netdevsim(t, "ethtool-fec"), parseFEC)
	if len(s.Missing) > 0 {
		t.Errorf("missing: %+v", s.Missing)
	}
	testkit.Golden(t, "testdata/netdevsim/ethtool.golden", hardwareListing(s.Values))
}

// answer makes an answer about eth0 with the attributes that come behind the
// header, whose own number is kind.
func answer(kind int, rest []byte) []byte {
	header := join(attr(unix.ETHTOOL_A_HEADER_DEV_INDEX, words(eth0.Index)), attr(unix.ETHTOOL_A_HEADER_DEV_NAME, []byte(eth0.Name+"\x00")))
	return join(attr(kind|unix.NLA_F_NESTED, header), rest)
}

// TestParseGroupsUnknown keeps what the kernel has no name for, and a group
// that has none.
func TestParseGroupsUnknown(t *testing.T) {
	group := join(attr(groupID, words(7)), attr(groupSet, words(99)), attr(groupStat, attr(3, longs(5))))
	values, err := parseGroups(answer(statsHeader, attr(statsGroup, group)), map[uint32][]string{99: {"a"}})
	if err != nil || len(values) != 1 || values[0].Name != "group_7.stat_3" || values[0].Value != 5 || values[0].Device != eth0 {
		t.Errorf("%+v, %v", values, err)
	}
	// Without a device it is nobody's.
	if values, err := parseGroups(attr(statsGroup, group), nil); len(values) > 0 || err != nil {
		t.Errorf("%+v, %v", values, err)
	}
}

// TestParseStats holds statistics that came after 6.1: of pause storms and of
// the errors in a block.
func TestParseStats(t *testing.T) {
	bin := func(low, high uint32, n []byte) []byte {
		return attr(5, join(attr(2, words(low)), attr(3, words(high)), attr(4, n)))
	}
	got := map[string]uint64{}
	add := func(values []Value, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		for _, v := range values {
			got[v.Name+"|"+v.Object] = v.Value
		}
	}
	add(parsePause(answer(1, attr(unix.ETHTOOL_A_PAUSE_STATS, join(attr(1, nil), attr(2, longs(20)), attr(4, longs(40)), attr(9, longs(90)))))))
	add(parseFEC(answer(1, attr(fecStats, join(attr(4, longs(6, 2, 4)), bin(0, 0, longs(70)), bin(1, 3, words(80)))))))
	want := map[string]uint64{
		"pause.tx_pause_frames|": 20, "pause.tx_pause_storm_events|": 40, "pause.stat_9|": 90,
		"fec.corrected_bits|": 6, "fec.corrected_bits|lane 0": 2, "fec.corrected_bits|lane 1": 4,
		"fec.hist|bin 0-0": 70, "fec.hist|bin 1-3": 80,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range [][]byte{attr(fecStats, attr(2, make([]byte, 7))), {1}} {
		if values, err := parseFEC(answer(1, bad)); !errors.Is(err, kernelnet.ErrShort) {
			t.Errorf("%+v, %v", values, err)
		}
	}
}

func FuzzParseEthtool(f *testing.F) {
	for _, file := range []string{"groups", "pause", "fec", "strset"} {
		for _, m := range netdevsim(f, "ethtool-"+file) {
			f.Add(m)
		}
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		sets := map[uint32][]string{}
		_ = parseStringSets(m, sets)
		for _, strs := range sets {
			if len(strs) > maxStrings {
				t.Errorf("%d strings", len(strs))
			}
		}
		setsOf([][]byte{m})
		for _, parse := range []func([]byte) ([]Value, error){
			func(m []byte) ([]Value, error) {
				return parseGroups(m, map[uint32][]string{setStandard: {"g"}, 0: {"s"}})
			}, parsePause, parseFEC,
		} {
			values, _ := parse(m)
			for _, v := range values {
				if v.Device == (record.Device{}) || v.Name == "" || v.Source == "" || v.Command == "" {
					t.Errorf("%+v", v)
				}
			}
		}
	})
}
