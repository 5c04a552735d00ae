package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

const statsSource = "rtnetlink RTM_GETSTATS"

// ifStatsMsg is struct if_stats_msg (include/uapi/linux/if_link.h): family,
// padding, device, the groups that are asked for.
type ifStatsMsg struct{ groups uint32 }

const sizeofIfStatsMsg = 12

func (ifStatsMsg) Len() int { return sizeofIfStatsMsg }

func (m ifStatsMsg) Serialize() []byte {
	return binary.NativeEndian.AppendUint32(make([]byte, 8, sizeofIfStatsMsg), m.groups)
}

// readLinkStats reads the extended statistics of all devices of the calling
// thread's namespace: none where the kernel is older than 4.7.
func readLinkStats(a *asker) ([][]byte, error) {
	var groups uint32
	for _, g := range []int{
		unix.IFLA_STATS_LINK_XSTATS, unix.IFLA_STATS_LINK_XSTATS_SLAVE,
		unix.IFLA_STATS_LINK_OFFLOAD_XSTATS, unix.IFLA_STATS_AF_SPEC,
	} {
		groups |= 1 << (g - 1) // IFLA_STATS_FILTER_BIT
	}
	messages, err := a.dump(unix.RTM_NEWSTATS, func() *nl.NetlinkRequest {
		req := nl.NewNetlinkRequest(unix.RTM_GETSTATS, unix.NLM_F_DUMP)
		req.AddData(ifStatsMsg{groups})
		return req
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return messages, err
}

// The attributes below the groups (include/uapi/linux/if_link.h, if_bridge.h,
// if_bonding.h, mpls.h).
const (
	xstatsBridge, xstatsBond  = 1, 2 // LINK_XSTATS_TYPE_
	bridgeVLAN, bridgeMcast   = 1, 2 // BRIDGE_XSTATS_
	bridgeSTP                 = 4
	bond3AD                   = 1 // BOND_XSTATS_3AD
	bond3ADPad                = 9 // BOND_3AD_STAT_PAD
	offloadCPUHit, offloadL3  = 1, 3
	mplsLink                  = 1
	sizeofVLANStats           = 40 // struct bridge_vlan_xstats
	vlanCounters, offsetOfVID = 32, 32
)

// linkTables are the names of what RTM_GETSTATS gives as structures of 64-bit
// counters.
type linkTables struct {
	vlan, stp, mcast, bond, cpuHit, l3, mpls u64table
}

func newLinkTables() linkTables {
	return linkTables{
		// struct bridge_vlan_xstats
		vlan: newTable("bridge_vlan", "stat_", []string{"rx_bytes", "rx_packets", "tx_bytes", "tx_packets"}),
		// struct bridge_stp_xstats, since 5.6
		stp: newTable("bridge_stp", "stat_", []string{
			"transition_blk", "transition_fwd", "rx_bpdu", "tx_bpdu", "rx_tcn", "tx_tcn",
		}),
		// struct br_mcast_stats; of two directions the first is that of
		// receiving (BR_MCAST_DIR_RX)
		mcast: newTable("bridge_mcast", "stat_", []string{
			"igmp_v1queries_rx", "igmp_v1queries_tx", "igmp_v2queries_rx", "igmp_v2queries_tx",
			"igmp_v3queries_rx", "igmp_v3queries_tx", "igmp_leaves_rx", "igmp_leaves_tx",
			"igmp_v1reports_rx", "igmp_v1reports_tx", "igmp_v2reports_rx", "igmp_v2reports_tx",
			"igmp_v3reports_rx", "igmp_v3reports_tx", "igmp_parse_errors",
			"mld_v1queries_rx", "mld_v1queries_tx", "mld_v2queries_rx", "mld_v2queries_tx",
			"mld_leaves_rx", "mld_leaves_tx", "mld_v1reports_rx", "mld_v1reports_tx",
			"mld_v2reports_rx", "mld_v2reports_tx", "mld_parse_errors",
			"mcast_bytes_rx", "mcast_bytes_tx", "mcast_packets_rx", "mcast_packets_tx",
		}),
		// BOND_3AD_STAT_, an attribute each; since 5.1
		bond: newTable("bond", "ad_stat_", []string{
			"lacpdu_rx", "lacpdu_tx", "lacpdu_unknown_rx", "lacpdu_illegal_rx", "marker_rx", "marker_tx",
			"marker_resp_rx", "marker_resp_tx", "marker_unknown_rx",
		}),
		cpuHit: newTable("cpu_hit", "stats64_", stats64()),
		// struct rtnl_hw_stats64, since 5.19
		l3: newTable("l3_stats", "stat_", []string{
			"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "multicast",
		}),
		// struct mpls_link_stats, since 4.12
		mpls: newTable("mpls", "stat_", []string{
			"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_noroute",
		}),
	}
}

// statsParser makes counters of RTM_NEWSTATS messages.
type statsParser struct {
	adder
	tables linkTables
	vlans  bound
	errs   []error
}

// parseLinkStats makes counters of RTM_NEWSTATS messages. names are those of
// the devices. A bridge with many VLANs has several messages.
func parseLinkStats(messages [][]byte, names map[uint32]string) ([]Value, error) {
	p := statsParser{tables: newLinkTables(), vlans: bound{what: "VLANs of bridges"}}
	p.source = statsSource
	for _, m := range messages {
		if len(m) < sizeofIfStatsMsg {
			p.fail(fmt.Errorf("message of statistics: %d bytes: %w", len(m), kernelnet.ErrShort))
			continue
		}
		index, _ := u32(m, 4)
		p.device = record.Device{Index: uint32(index), Name: names[uint32(index)]}
		p.command = "ip stats show"
		if p.device.Name != "" {
			p.command += " dev " + quote(p.device.Name)
		}
		p.message(m[sizeofIfStatsMsg:])
	}
	return p.values, parseError(statsSource, append(p.errs, p.vlans.err())...)
}

func (p *statsParser) fail(err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("device %d: %w", p.device.Index, err))
	}
}

func (p *statsParser) message(b []byte) {
	p.fail(kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case unix.IFLA_STATS_LINK_XSTATS, unix.IFLA_STATS_LINK_XSTATS_SLAVE:
			p.fail(pick(content, map[int]func([]byte){xstatsBridge: p.bridge, xstatsBond: p.bonding}))
		case unix.IFLA_STATS_LINK_OFFLOAD_XSTATS:
			p.fail(pick(content, map[int]func([]byte){
				offloadCPUHit: func(b []byte) { p.tables.cpuHit.counts(&p.adder, "", b) },
				offloadL3:     func(b []byte) { p.tables.l3.counts(&p.adder, "", b) },
			}))
		case unix.IFLA_STATS_AF_SPEC:
			p.fail(pick(content, map[int]func([]byte){unix.AF_MPLS: p.mpls}))
		}
	}))
}

// bridge adds what a bridge or a port of one counts
// (net/bridge/br_netlink.c, br_fill_linkxstats).
func (p *statsParser) bridge(b []byte) {
	p.fail(pick(b, map[int]func([]byte){
		bridgeVLAN:  p.vlan,
		bridgeMcast: func(b []byte) { p.tables.mcast.counts(&p.adder, "", b) },
		bridgeSTP:   func(b []byte) { p.tables.stp.counts(&p.adder, "", b) },
	}))
}

func (p *statsParser) vlan(b []byte) {
	if len(b) < sizeofVLANStats {
		p.fail(fmt.Errorf("statistics of a VLAN: %d bytes: %w", len(b), kernelnet.ErrShort))
		return
	}
	if !p.vlans.another() {
		return
	}
	vid := binary.NativeEndian.Uint16(b[offsetOfVID:])
	command := p.command
	p.command = "bridge -s vlan show"
	if p.device.Name != "" {
		p.command += " dev " + quote(p.device.Name)
	}
	p.tables.vlan.counts(&p.adder, "vlan "+strconv.Itoa(int(vid)), b[:vlanCounters])
	p.command = command
}

// bonding adds what a bond with LACP, or a member of one, counts
// (drivers/net/bonding/bond_3ad.c, bond_3ad_stats_fill). The numbers of the
// attributes begin with 0.
func (p *statsParser) bonding(b []byte) {
	p.fail(pick(b, map[int]func([]byte){bond3AD: func(b []byte) {
		p.fail(kernelnet.Attributes(b, 0, func(kind int, content []byte) {
			v, ok := u64(content, 0)
			switch {
			case !ok || kind == bond3ADPad:
			case int(kind) < len(p.tables.bond.names):
				p.count(p.tables.bond.names[kind], "", v)
			default:
				p.count(p.tables.bond.more+strconv.Itoa(int(kind)), "", v)
			}
		}))
	}}))
}

// mpls adds what MPLS counts of a device (net/mpls/af_mpls.c,
// mpls_fill_stats_af).
func (p *statsParser) mpls(b []byte) {
	p.fail(pick(b, map[int]func([]byte){
		mplsLink: func(b []byte) { p.tables.mpls.counts(&p.adder, "", b) },
	}))
}
