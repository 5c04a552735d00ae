package diagnose_test

import (
	"slices"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// TestStraddle: two counters that count the same packets and are not read in the
// same instant give each packet once, in whatever interval each shows it.
func TestStraddle(t *testing.T) {
	k := stationUDP(t)
	for name, c := range map[string]struct {
		in, rcvbuf, csum [3]uint64
		green            [3]uint64 // Udp.RcvbufErrors of another namespace
		want             [3]uint64
	}{
		"in one":                  {[3]uint64{23}, [3]uint64{23}, [3]uint64{}, [3]uint64{}, [3]uint64{23}},
		"later":                   {[3]uint64{23}, [3]uint64{0, 23}, [3]uint64{}, [3]uint64{}, [3]uint64{23}},
		"in parts":                {[3]uint64{23}, [3]uint64{1, 22}, [3]uint64{}, [3]uint64{}, [3]uint64{23}},
		"more than before":        {[3]uint64{5, 10}, [3]uint64{0, 15}, [3]uint64{}, [3]uint64{}, [3]uint64{5, 10}},
		"the other way round":     {[3]uint64{0, 15}, [3]uint64{5, 10}, [3]uint64{}, [3]uint64{}, [3]uint64{5, 10}},
		"one late, one not":       {[3]uint64{23}, [3]uint64{23}, [3]uint64{0, 23}, [3]uint64{}, [3]uint64{23}},
		"two at once":             {[3]uint64{23}, [3]uint64{0, 13}, [3]uint64{0, 10}, [3]uint64{}, [3]uint64{23}},
		"too late":                {[3]uint64{23}, [3]uint64{0, 0, 23}, [3]uint64{}, [3]uint64{}, [3]uint64{23, 0, 23}},
		"of another namespace":    {[3]uint64{23}, [3]uint64{}, [3]uint64{}, [3]uint64{0, 23}, [3]uint64{23, 23}},
		"never by the other":      {[3]uint64{0, 7, 7}, [3]uint64{}, [3]uint64{}, [3]uint64{}, [3]uint64{0, 7, 7}},
		"each a little behind":    {[3]uint64{10, 10, 10}, [3]uint64{8, 10, 12}, [3]uint64{}, [3]uint64{}, [3]uint64{10, 10, 10}},
		"what no other counts":    {[3]uint64{0, 0, 4}, [3]uint64{4}, [3]uint64{}, [3]uint64{}, [3]uint64{4, 0, 4}},
		"new ones beside the old": {[3]uint64{20, 5}, [3]uint64{0, 25}, [3]uint64{}, [3]uint64{}, [3]uint64{20, 5}},
	} {
		opt := second
		opt.Straddle = &diagnose.Straddle{}
		var got [3]uint64
		for i := range got {
			cs := []record.Counter{
				counted("Udp.InErrors", blue, record.Device{}, "", 0, c.in[i]),
				counted("Udp.RcvbufErrors", blue, record.Device{}, "", 0, c.rcvbuf[i]),
				counted("Udp.InCsumErrors", blue, record.Device{}, "", 0, c.csum[i]),
				counted("Udp.RcvbufErrors", record.NetNS{Inode: 8, Name: "green"}, record.Device{}, "", 0, c.green[i]),
			}
			stations, _ := diagnose.CountersByStation(cs, k, opt)
			got[i] = atStation(stations, record.StationSocket).Lost
		}
		if !slices.Equal(got[:], c.want[:]) {
			t.Errorf("%s: lost %d, want %d", name, got, c.want)
		}
	}
}

// TestStraddleIsOfAStation: what one station lost is lost at the next one on the
// way too, whenever it is seen there.
func TestStraddleIsOfAStation(t *testing.T) {
	k, opt := stationUDP(t), second
	opt.Straddle = &diagnose.Straddle{}
	for _, c := range []struct{ qdisc, ip uint64 }{{9, 0}, {0, 9}} {
		cs := []record.Counter{
			counted("qdisc.drops", blue, eth0, "", 0, c.qdisc),
			counted("Ip.OutDiscards", blue, record.Device{}, "", 0, c.ip),
		}
		stations, _ := diagnose.CountersByStation(cs, k, opt)
		if q, i := atStation(stations, "qdisc").Lost, atStation(stations, "transport-tx").Lost; q != c.qdisc || i != c.ip {
			t.Errorf("%+v: lost %d and %d", c, q, i)
		}
	}
}
