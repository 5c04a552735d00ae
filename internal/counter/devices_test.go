package counter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/internal/testkit"
)

// deviceSources are the sources of rtnetlink, with messages of kernels.
var deviceSources = []struct {
	name, source string
	parse        func([][]byte, map[uint32]string) ([]Value, error)
}{
	{"links", linkSource, func(m [][]byte, _ map[uint32]string) ([]Value, error) { return parseLinks(m) }},
	{"linkstats", statsSource, parseLinkStats},
	{"qdiscs", qdiscSource, parseQdiscs},
	{"classes", classSource, parseClasses},
	{"filters", filterSource, parseFilters},
}

// TestParseDevicesGolden parses what Debian's kernels 5.10 and 7.2 said of the
// devices of the tests MatchesIPStats, MatchesTCQueues and MatchesTCFilters,
// where it was compared with ip and tc.
func TestParseDevicesGolden(t *testing.T) {
	for _, s := range deviceSources {
		for _, kernel := range []string{"5.10", "7.2"} {
			name := s.name + "-" + kernel + ".hex"
			t.Run(name, func(t *testing.T) {
				values, err := s.parse(loadMessages(t, name), map[uint32]string{3: "three"})
				if err != nil {
					t.Fatal(err)
				}
				wellFormed(t, values, s.source)
				testkit.Golden(t, filepath.Join("testdata", name+".golden"), listing(values))
			})
		}
	}
}

// TestTruncatedMessages cuts every message at every byte: what is then still
// reported is the same as of the whole message.
func TestTruncatedMessages(t *testing.T) {
	for _, s := range deviceSources {
		for _, m := range loadMessages(t, s.name+"-7.2.hex") {
			whole := map[string]uint64{}
			values, err := s.parse([][]byte{m}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				whole[v.Name+" "+v.Object] = v.Value
			}
			for n := range len(m) {
				values, _ := s.parse([][]byte{m[:n]}, nil)
				for _, v := range values {
					// The name of a filter is known before all of it is.
					if want, ok := whole[v.Name+" "+v.Object]; ok && want != v.Value && !strings.HasSuffix(v.Name, ".prob") {
						t.Fatalf("%s: %d of %d bytes: %s [%s] is %d, want %d", s.name, n, len(m), v.Name, v.Object, v.Value, want)
					}
				}
			}
		}
	}
}

// part finds the value of a part of a device.
func part(t testing.TB, values []Value, name, object string) uint64 {
	t.Helper()
	for _, v := range values {
		if v.Name == name && v.Object == object {
			return v.Value
		}
	}
	t.Errorf("no %s of %q", name, object)
	return 0
}

// TestSignedLevels: what is below 0 is told by a second level.
func TestSignedLevels(t *testing.T) {
	minus := func(n int32) uint32 { return uint32(n) }
	m := join(words(0, 3, 0x10010, 0x10001, 0), attr(nl.TCA_KIND, []byte("htb\x00")),
		attr(nl.TCA_STATS2, attr(nl.TCA_STATS_APP, words(1, 2, 3, minus(-40), 50))))
	values, err := parseClasses([][]byte{m}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{
		"htb.lends": 1, "htb.borrows": 2, "htb.giants": 3, "htb.tokens": 0, "htb.tokens_below_0": 40, "htb.ctokens": 50,
	}
	if len(values) != len(want) {
		t.Errorf("%+v", values)
	}
	for name, v := range want {
		if got := part(t, values, name, "class 1:10"); got != v {
			t.Errorf("%s is %d, want %d", name, got, v)
		}
	}
	for _, v := range values {
		if v.Level != strings.Contains(v.Name, "tokens") {
			t.Errorf("%+v", v)
		}
	}
	f := xfield{name: "a.b", size: 8, signed: true, level: true}
	got := f.read(nil, longs(1<<63))
	if len(got) != 2 || got[1].value != 1<<63 {
		t.Errorf("the least number: %+v", got)
	}
}

// TestOtherLayouts: a structure of another form gives nothing.
func TestOtherLayouts(t *testing.T) {
	x := newXparser()
	for _, c := range []struct {
		kind string
		app  []byte
		want int
	}{
		{"pie", words(1, 2, 3, 4, 5, 6, 7, 8), 0},    // before 5.5
		{"pie", words(1, 2, 3, 4, 5, 6, 7, 8, 9), 0}, // 5.5
		{"pie", append(longs(1), words(1, 2, 3, 4, 5, 6, 7, 8)...), 9},
		{"fq_codel", words(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 0}, // that of a class
		{"fq_codel", nil, 0},
		{"pfifo", words(1, 2, 3), 0},
		{"to_come", words(1, 2, 3), 0},
	} {
		values, err := x.ofQdisc(c.kind, c.app, nil)
		if err != nil || len(values) != c.want {
			t.Errorf("%s of %d bytes: %v, %v", c.kind, len(c.app), values, err)
		}
	}
	// What cake has learnt since is kept.
	values, err := x.ofQdisc("cake", join(attr(99, words(7)), attr(cakeTins, attr(1, attr(98, longs(8))))), nil)
	if err != nil || len(values) != 2 || values[0] != (xvalue{name: "cake.stat_99", value: 7, level: true}) ||
		values[1] != (xvalue{name: "cake.stat_98", part: "tin 0", value: 8, level: true}) {
		t.Errorf("%+v, %v", values, err)
	}
}

// TestFilterPlaces: every place is asked for once, and none that has no
// filters.
func TestFilterPlaces(t *testing.T) {
	qdiscs := []qdisc{
		{device: 1, parent: handleRoot, kind: "noqueue"},
		{device: 2, parent: handleRoot, handle: 0x10000, kind: "htb"},
		{device: 2, parent: handleIngress, handle: 0xffff0000, kind: "clsact"},
		{device: 3, parent: handleRoot, kind: "fq_codel"},
		{device: 3, parent: handleIngress, handle: 0xffff0000, kind: "ingress", ingressBlock: 7},
		{device: 4, parent: handleIngress, handle: 0xffff0000, kind: "clsact", ingressBlock: 7, egressBlock: 8},
		{device: 5, parent: handleRoot, kind: "mq"},
		{device: 5, parent: 1, kind: "fq_codel"}, // without a handle nothing hangs on it
		{device: 6, parent: handleRoot, handle: 0x20000, kind: "red", blocks: []uint32{8, 9}},
	}
	classes := []class{
		{device: 2, handle: 0x10001, parent: handleRoot},
		{device: 2, handle: 0x10010, parent: 0x10001},
		{device: 2, handle: 0x10011, parent: 0x10001},
		{device: 5, handle: 1, parent: 0},
	}
	want := []filterPlace{
		{2, 0x10000}, {2, parentIngress}, {2, parentEgress}, {3, 0}, {indexOfBlock, 7}, {indexOfBlock, 8}, {indexOfBlock, 9}, {2, 0x10001},
	}
	if got := filterPlaces(qdiscs, classes); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestNamesOfParts(t *testing.T) {
	for h, want := range map[uint32]string{0: "0:", 0x100000: "10:", 0x10010: "1:10", 5: ":5", 0xffff0000: "ffff:", 0x8001000a: "8001:a"} {
		if got := handle(h); got != want {
			t.Errorf("handle %x: %s, want %s", h, got, want)
		}
	}
	for h, want := range map[uint32]string{0x80000800: "800::800", 0x80100000: "801::", 0x80203001: "802:3:1"} {
		if got := u32Handle(h); got != want {
			t.Errorf("handle %x of u32: %s, want %s", h, got, want)
		}
	}
	for want, q := range map[string]qdisc{
		"qdisc 10:":           {handle: 0x100000, parent: handleRoot},
		"qdisc 0:":            {parent: handleRoot},
		"qdisc 0: parent :3":  {parent: 3},
		"qdisc 0: parent 1:3": {parent: 0x10003},
	} {
		if got := q.object(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestSameFlows: flows that nothing tells apart have no counters.
func TestSameFlows(t *testing.T) {
	flow := func(device, handle uint32) []byte {
		return join(words(0, device, handle, 0, 0), attr(nl.TCA_KIND, []byte("fq_codel\x00")),
			attr(nl.TCA_STATS2, attr(nl.TCA_STATS_QUEUE, words(1, 2, 3, 4, 5))))
	}
	values, err := parseClasses([][]byte{flow(1, 7), flow(1, 7), flow(1, 8), flow(2, 7)}, nil)
	if err != nil || len(values) != 10 {
		t.Fatalf("%+v, %v", values, err)
	}
	for _, v := range values {
		if v.Device.Index == 1 && v.Object == "class :7" {
			t.Errorf("%+v", v)
		}
	}
}

// TestParseOldPolicer parses a policer of the time before actions.
func TestParseOldPolicer(t *testing.T) {
	m := join(words(0, 4, 0x80000800, 0xffff0000, 5<<16), attr(nl.TCA_KIND, []byte("u32\x00")), attr(nl.TCA_CHAIN, words(2)),
		attr(nl.TCA_OPTIONS, attr(6, attr(1, words(9, 2, 3)))),
		attr(nl.TCA_STATS, join(longs(1000), words(10, 3, 4, 0, 0, 1, 60))))
	values, err := parseFilters([][]byte{m}, map[uint32]string{4: "eth0"})
	if err != nil || len(values) != 7 {
		t.Fatalf("%+v, %v", values, err)
	}
	const object = "filter ffff: chain 2 pref 5 handle 800::800 action police 9"
	for name, want := range map[string]uint64{"bytes": 1000, "packets": 10, "drops": 3, "overlimits": 4, "qlen": 1, "backlog": 60} {
		if got := part(t, values, "tc_action."+name, object); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	if c := values[0].Command; c != "tc -s filter show dev eth0 parent ffff:" {
		t.Errorf("command %q", c)
	}
	if _, err := parseFilters([][]byte{join(m[:20], attr(nl.TCA_STATS, longs(1)))}, nil); !errors.Is(err, kernelnet.ErrShort) {
		t.Errorf("half of its statistics: %v", err)
	}
}

// TestBoundOfParts: totals are whole, of parts the first are there, and the
// rest is counted.
func TestBoundOfParts(t *testing.T) {
	var messages, classes [][]byte
	const n = maxParts + 100
	for i := range uint32(n) {
		messages = append(messages, queue(i+1, 0, handleRoot, "pfifo", 3))
		classes = append(classes, join(words(0, 1, 0x10000+i, 0, 0), attr(nl.TCA_KIND, []byte("drr\x00")),
			attr(nl.TCA_STATS2, attr(nl.TCA_STATS_QUEUE, words(1, 2, 3, 4, 5)))))
	}
	count := func(values []Value, name string) (totals, parts int) {
		for _, v := range values {
			switch {
			case v.Name != name:
			case v.Object == "":
				totals++
			default:
				parts++
			}
		}
		return totals, parts
	}
	values, err := parseQdiscs(messages, nil)
	if totals, parts := count(values, "qdisc.drops"); totals != n || parts != maxParts {
		t.Errorf("%d totals, %d parts", totals, parts)
	}
	if err == nil || !strings.Contains(err.Error(), "counters of 100 qdiscs are left out, those of 8192 are there") {
		t.Errorf("%v", err)
	}
	values, err = parseClasses(classes, nil)
	if _, parts := count(values, "class.drops"); parts != maxParts || err == nil {
		t.Errorf("%d classes, %v", parts, err)
	}
}

func TestParseLinkStatsHostile(t *testing.T) {
	good := join(words(0, 7, 0), attr(unix.IFLA_STATS_AF_SPEC, attr(unix.AF_MPLS, attr(mplsLink, longs(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)))))
	bad := [][]byte{
		nil, good[:11], good[:13],
		join(words(0, 8, 0), attr(unix.IFLA_STATS_LINK_XSTATS, attr(xstatsBridge, attr(bridgeVLAN, longs(1))))),
		join(words(0, 8, 0), attr(unix.IFLA_STATS_LINK_XSTATS, []byte{1, 2, 3})),
		join(words(0, 8, 0), attr(unix.IFLA_STATS_LINK_XSTATS, attr(xstatsBond, attr(bond3AD, []byte{9, 0, 0, 0})))),
	}
	for _, m := range bad {
		values, err := parseLinkStats([][]byte{m, good}, map[uint32]string{7: "a b"})
		if !errors.Is(err, kernelnet.ErrShort) || len(values) != 10 {
			t.Errorf("%x: %v, %d values", m, err, len(values))
			continue
		}
		if v := values[9]; v.Name != "mpls.stat_9" || v.Value != 10 || v.Command != "ip stats show dev 'a b'" {
			t.Errorf("%+v", v)
		}
	}
}

// host makes the answers of a host with n devices, of the size that they have:
// of three a qdisc fq_codel without handle, of the fourth a mq with four.
func host(n int) (links, qdiscs [][]byte) {
	rest := attr(unix.IFLA_AF_SPEC, make([]byte, 1000))
	for i := range uint32(n) {
		links = append(links, append(link(i+1, fmt.Sprintf("veth%08x", i), 25), rest...))
		app := func(b []byte) []byte { return attr(nl.TCA_STATS_APP, b) }
		stats := words(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		if i%4 != 0 {
			qdiscs = append(qdiscs, queue(i+1, 0, handleRoot, "fq_codel", i, app(stats)))
			continue
		}
		qdiscs = append(qdiscs, queue(i+1, 0, handleRoot, "mq", 4*i))
		for q := range uint32(4) {
			qdiscs = append(qdiscs, queue(i+1, 0, q+1, "fq_codel", i, app(stats)))
		}
	}
	return links, qdiscs
}

const manyLinks = 2000

// TestManyLinks parses the answers of a host with 2,000 devices.
func TestManyLinks(t *testing.T) {
	links, qdiscs := host(manyLinks)
	began := time.Now()
	values, err := parseLinks(links)
	more, qerr := parseQdiscs(qdiscs, nil)
	took := time.Since(began)
	if err := errors.Join(err, qerr); err != nil {
		t.Fatal(err)
	}
	if len(values) != 25*manyLinks {
		t.Errorf("%d values of devices", len(values))
	}
	// 7 of the qdiscs together, 5 of fq_codel; of each 7, of fq_codel 9.
	if want := manyLinks * (7 + 5 + 3*16/4 + (7+4*16)/4); len(more) < want*9/10 || len(more) > want*11/10 {
		t.Errorf("%d values of qdiscs, want about %d", len(more), want)
	}
	for device := range uint32(manyLinks) {
		if device%397 != 0 {
			continue
		}
		want := uint64(device)
		if device%4 == 0 {
			want *= 4
		}
		if got := deviceValue(t, more, "qdisc.drops", device+1); got != want {
			t.Errorf("device %d: %d drops, want %d", device+1, got, want)
		}
	}
	// 40 ms on a slow machine; the race detector takes ten times as long.
	if took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func BenchmarkManyLinks(b *testing.B) {
	links, qdiscs := host(manyLinks)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseLinks(links); err != nil {
			b.Fatal(err)
		}
		if _, err := parseQdiscs(qdiscs, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// packed makes one input of a fuzz target of messages.
func packed(messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = append(binary.NativeEndian.AppendUint16(b, uint16(len(m))), m...)
	}
	return b
}

func unpacked(b []byte) (messages [][]byte) {
	for len(b) > 2 {
		n := min(int(binary.NativeEndian.Uint16(b)), len(b)-2)
		messages = append(messages, b[2:2+n])
		b = b[2+n:]
	}
	return messages
}

// fuzzDevices gives the messages of a source to its parser.
func fuzzDevices(f *testing.F, source int) {
	s := deviceSources[source]
	for _, kernel := range []string{"5.10", "7.2"} {
		all := loadMessages(f, s.name+"-"+kernel+".hex")
		for _, m := range all {
			f.Add(packed(m))
		}
		f.Add(packed(all[:2]...))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		values, _ := s.parse(unpacked(b), map[uint32]string{1: "eth0"})
		wellFormed(t, values, s.source)
		for _, v := range values {
			if v.Object == "" && (strings.HasPrefix(v.Name, "class.") || strings.HasPrefix(v.Name, "tc_")) {
				t.Errorf("%+v is of no part", v)
			}
		}
		// Every value takes bytes of its own, at least four, and has at most
		// a total and an amount below 0 beside it.
		if len(values) > 3*len(b)/4+16*len(unpacked(b)) {
			t.Errorf("%d values of %d bytes", len(values), len(b))
		}
	})
}

func FuzzParseLinkStats(f *testing.F) { fuzzDevices(f, 1) }
func FuzzParseClasses(f *testing.F)   { fuzzDevices(f, 3) }
func FuzzParseFilters(f *testing.F)   { fuzzDevices(f, 4) }

// TestCatalogueOfDevices: every name that the tables of this package have is
// described, and so is every one that a kernel gave.
func TestCatalogueOfDevices(t *testing.T) {
	var text []byte
	for _, name := range []string{"link", "qdisc", "tc", "bridge", "bond"} {
		b, err := os.ReadFile("../../knowledge/counters/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	for name := range deviceCounters(t) {
		if !bytes.Contains(text, []byte("\n  "+name+":\n")) {
			t.Errorf("%s is not in knowledge/counters", name)
		}
	}
}

// deviceCounters are the names of all counters that rtnetlink can give.
func deviceCounters(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	tables := newLinkTables()
	for _, table := range []u64table{
		tables.vlan, tables.stp, tables.mcast, tables.bond, tables.cpuHit, tables.l3, tables.mpls, newTable("link", "", stats64()),
	} {
		for _, n := range table.names {
			names[n] = true
		}
	}
	for _, layouts := range []xlayouts{qdiscLayouts(), classLayouts(), optionLayouts(), {"can": canStats()}} {
		for _, fields := range layouts {
			for _, f := range fields {
				names[f.name] = true
				names[f.name+"_below_0"] = f.signed
			}
		}
	}
	for table, attrs := range map[string][]map[int]xattr{
		"cake": {cakeAttrs(), cakeTinAttrs()}, "gred": {gredAttrs()}, "taprio": {taprioAttrs()},
	} {
		for _, list := range attrs {
			for _, x := range list {
				names[table+"."+x.name] = !x.ignore
				names[table+"."+x.name+"_below_0"] = x.signed
			}
		}
	}
	for _, name := range ctinfoCounters() {
		names[name] = true
	}
	for _, s := range deviceSources {
		values, err := s.parse(loadMessages(t, s.name+"-7.2.hex"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			names[v.Name] = true
		}
	}
	maps.DeleteFunc(names, func(_ string, is bool) bool { return !is })
	return names
}
