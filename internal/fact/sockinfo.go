package fact

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Attributes of struct inet_diag_msg (include/uapi/linux/inet_diag.h).
const (
	diagInfo     = 2
	diagVegas    = 3
	diagCong     = 4
	diagTOS      = 5
	diagTClass   = 6
	diagShutdown = 8
	diagDCTCP    = 9
	diagProtocol = 10
	diagV6Only   = 11
	diagMark     = 15
	diagBBR      = 16
	diagClassID  = 17
	diagULP      = 19
	diagCgroupID = 21
	diagSockopt  = 22
	ulpName      = 1 // INET_ULP_INFO_NAME
)

// skmem are the fields of SK_MEMINFO_* in their order, as ss -m names them: r,
// rb, t, tb, f, w, o, bl, d.
var skmem = []string{"rmem", "rcvbuf", "wmem", "sndbuf", "fwd_alloc", "wmem_queued", "optmem", "sk_backlog", "drops"}

// timers are the names of idiag_timer as ss -o has them (the last since 6.17).
var timers = []string{"", "on", "keepalive", "timewait", "persist", "delack"}

// sockopts are the bits of struct inet_diag_sockopt, since 5.10.
var sockopts = []string{
	"recverr", "is_icsk", "freebind", "hdrincl", "mc_loop", "transparent", "mc_all", "nodefrag",
	"bind_addr_no_port", "recverr_rfc4884", "defer_connect",
}

// infoOptions are the bits of tcpi_options (TCPI_OPT_* of
// include/uapi/linux/tcp.h).
var infoOptions = []string{"timestamps", "sack", "wscale", "ecn", "ecn_seen", "syn_data", "usec_ts", "tfo_child"}

// member is a number in a structure of the kernel, of size bytes at a place.
type member struct {
	name     string
	at, size int
}

// tcpInfo are the members of struct tcp_info (include/uapi/linux/tcp.h, 7.2)
// without tcpi_; it only ever grew. Its last four bytes are not read: they
// mean one thing in 6.18 and another in 7.2.
var tcpInfo = membersOf(1, 0, "", "ca_state", "retransmits", "probes", "backoff").
	and(4, 8, "rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets",
		"last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv",
		"pmtu", "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss", "reordering",
		"rcv_rtt", "rcv_space", "total_retrans").
	and(8, 104, "pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received").
	and(4, 136, "segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out").
	and(8, 160, "delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited").
	and(4, 192, "delivered", "delivered_ce").
	and(8, 200, "bytes_sent", "bytes_retrans").
	and(4, 216, "dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd", "rcv_wnd", "rehash").
	and(2, 240, "total_rto", "total_rto_recoveries").
	and(4, 244, "total_rto_time", "received_ce", "delivered_e1_bytes", "delivered_e0_bytes", "delivered_ce_bytes",
		"received_e1_bytes", "received_e0_bytes", "received_ce_bytes")

// congestion are the structures that algorithms of congestion control tell.
var congestion = map[int]members{
	diagVegas: membersOf(4, 0, "vegas_enabled", "vegas_rttcnt", "vegas_rtt", "vegas_minrtt"),
	diagDCTCP: membersOf(2, 0, "dctcp_enabled", "dctcp_ce_state").and(4, 4, "dctcp_alpha", "dctcp_ab_ecn", "dctcp_ab_tot"),
	diagBBR:   membersOf(8, 0, "bbr_bw").and(4, 8, "bbr_min_rtt", "bbr_pacing_gain", "bbr_cwnd_gain"),
}

type members []member

// membersOf are members of one size that follow each other.
func membersOf(size, at int, names ...string) members { return members(nil).and(size, at, names...) }

func (m members) and(size, at int, names ...string) members {
	for i, name := range names {
		m = append(m, member{name, at + i*size, size})
	}
	return m
}

// read adds the members that b is long enough for. One without a name is left
// out.
func (m members) read(f fields, b []byte) {
	for _, x := range m {
		if x.name == "" || len(b) < x.at+x.size {
			continue
		}
		v := b[x.at:]
		switch x.size {
		case 1:
			f[x.name] = decimal(v[0])
		case 2:
			f[x.name] = decimal(native.Uint16(v))
		case 4:
			f[x.name] = decimal(native.Uint32(v))
		case 8:
			f[x.name] = decimal(native.Uint64(v))
		}
	}
}

// putMemory adds SK_MEMINFO_*.
func putMemory(f fields, b []byte) { membersOf(4, 0, skmem...).read(f, b) }

// putInfo adds struct tcp_info.
func putInfo(f fields, b []byte) {
	tcpInfo.read(f, b)
	if len(b) < 8 {
		return
	}
	f["options"] = flagNames(uint32(b[5]), infoOptions)
	f["snd_wscale"], f["rcv_wscale"] = decimal(b[6]&0xf), decimal(b[6]>>4)
	f["delivery_rate_app_limited"], f["fastopen_client_fail"] = decimal(b[7]&1), decimal(b[7]>>1&3)
}

// flagNames are the names of the bits that are set, by spaces.
func flagNames(bits uint32, names []string) string {
	var set []string
	for i, name := range names {
		if bits>>i&1 == 1 {
			set = append(set, name)
		}
	}
	return strings.Join(set, " ")
}

// inetDetail reads all that is known of struct inet_diag_msg and its
// attributes. Keys of MD5 signatures (INET_DIAG_MD5SIG) are no business of
// anybody's.
func inetDetail(b []byte) (name string, f fields, err error) {
	s, err := parseDiag(b)
	if err != nil {
		return "", nil, err
	}
	f = s.fields()
	s.putEnds(f)
	if s.state == tcpListen {
		f["backlog"] = decimal(s.sendQ)
	} else {
		f["send_q"] = decimal(s.sendQ)
	}
	f["cookie"] = decimal(native.Uint64(b[diagID+40:]))
	if dev := native.Uint32(b[diagID+36:]); dev != 0 {
		f["ifindex"] = decimal(dev)
	}
	if timer := int(b[2]); timer > 0 {
		f["timer"] = "unknown"
		if timer < len(timers) {
			f["timer"] = timers[timer]
		}
		f["timer_ms"], f["timer_retrans"] = decimal(native.Uint32(b[52:])), decimal(b[3])
	}
	err = kernelnet.Attributes(b, kernelnet.SizeofInetDiag, func(t int, v []byte) { putDiag(f, t, v) })
	return s.name(), f, err
}

// putDiag adds one attribute.
func putDiag(f fields, t int, v []byte) {
	put8 := func(name string) {
		if len(v) == 1 {
			f[name] = decimal(v[0])
		}
	}
	switch t {
	case kernelnet.InetMeminfo:
		putMemory(f, v)
	case diagInfo:
		putInfo(f, v)
	case diagVegas, diagDCTCP, diagBBR:
		congestion[t].read(f, v)
	case diagCong:
		f["congestion"] = text(v)
	case diagTOS:
		put8("tos")
	case diagTClass:
		put8("tclass")
	case diagShutdown:
		put8("shutdown")
	case diagProtocol:
		put8("protocol")
	case diagV6Only:
		put8("v6only")
	case diagMark:
		put32(f, "mark", v)
	case diagClassID:
		put32(f, "class_id", v)
	case diagCgroupID:
		if len(v) == 8 {
			f["cgroup_id"] = decimal(native.Uint64(v))
		}
	case diagSockopt:
		var two [4]byte
		copy(two[:2], v)
		f["sockopt"] = flagNames(native.Uint32(two[:]), sockopts)
	case diagULP:
		_ = kernelnet.Attributes(v, 0, func(t int, v []byte) {
			if t == ulpName {
				f["ulp"] = text(v)
			}
		})
	}
}

// putEnds adds the state and the other end, where the socket has one.
func (s *socket) putEnds(f fields) {
	switch {
	case s.state == tcpNewSynRecv:
		f["state"] = stateNames[tcpSynRecv]
	case int(s.state) < len(stateNames) && s.state > 0:
		f["state"] = stateNames[s.state]
	default:
		f["state"] = decimal(s.state)
	}
	if s.connected() {
		f["peer_addr"], f["peer_port"] = s.peer.Addr().String(), decimal(s.peer.Port())
	}
}

func (s *socket) connected() bool {
	return s.peer.IsValid() && (s.peer.Port() != 0 || !s.peer.Addr().IsUnspecified())
}

// name is the local end, and the other one behind a space.
func (s *socket) name() string {
	if s.connected() {
		return s.local.String() + " " + s.peer.String()
	}
	return s.local.String()
}

// withInfo asks for a TCP socket anew, with struct tcp_info and all else. The
// cookie in its id makes sure that it is the same. A listener that shares its
// port with others is not found that way, so those of the port are asked for.
// Where it is gone, what is known stays.
func withInfo(b []byte) []byte {
	if len(b) < kernelnet.SizeofInetDiag {
		return b
	}
	id := b[diagID : diagID+kernelnet.SizeofInetID]
	best := b
	take := func(m []byte) error {
		if len(m) >= kernelnet.SizeofInetDiag && bytes.Equal(m[diagID+40:diagID+48], id[40:48]) {
			best = bytes.Clone(m)
		}
		return nil
	}
	m := kernelnet.InetDiag(b[0], unix.IPPROTO_TCP, everyExt, 1<<b[1]&allStates, id)
	err := kernelnet.Ask(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, unix.SOCK_DIAG_BY_FAMILY, 0, m, take)
	if err != nil && b[1] == tcpListen {
		// In a list only the ports of the id are compared
		// (net/ipv4/inet_diag.c, inet_diag_dump_icsk).
		_ = kernelnet.DiagDump(kernelnet.InetDiag(b[0], unix.IPPROTO_TCP, everyExt, 1<<tcpListen, id[:2]), take)
	}
	return best
}
