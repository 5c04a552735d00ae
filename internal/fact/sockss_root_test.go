//go:build root

package fact

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
)

// ssSocket is a line of ss -H -O -anmie: the columns, and all that follows by
// its name. What has no name is its own value.
type ssSocket struct {
	columns []string // state, receive and send queue, both ends
	values  map[string]string
}

// inParentheses are the parts of a line that hold spaces.
var inParentheses = regexp.MustCompile(`(\S+)\( ?([^()]*?) ?\)`)

// percent is behind a time.
var percent = regexp.MustCompile(`\([0-9.]+%\)`)

// withNumber are the words of ss that a number follows after a space.
var withNumber = []string{"send", "pacing_rate", "delivery_rate"}

// runSS runs ss in the namespace of the thread; columns is how many come
// before the words.
func runSS(t *testing.T, columns int, args ...string) (list []ssSocket) {
	t.Helper()
	must(t, testkit.Iproute2("ss"))
	cmd := exec.Command("ss", append([]string{"-H", "-O", "-n", "-a", "-m", "-i", "-e"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	must(t, err)
	for line := range strings.Lines(string(out)) {
		list = append(list, parseSS(t, line, columns))
	}
	return list
}

func parseSS(t *testing.T, line string, columns int) ssSocket {
	t.Helper()
	s := ssSocket{values: map[string]string{}}
	line = percent.ReplaceAllString(line, "")
	line = inParentheses.ReplaceAllStringFunc(line, func(part string) string {
		m := inParentheses.FindStringSubmatch(part)
		s.values[strings.TrimSuffix(m[1], ":")] = m[2]
		return ""
	})
	if before, peers, ok := strings.Cut(line, " peers:"); ok {
		s.values["peers"] = peers
		line = before
	}
	words := strings.Fields(line)
	if len(words) < columns {
		t.Fatalf("ss: %q has less than %d columns", line, columns)
	}
	s.columns = words[:columns]
	for words = words[columns:]; len(words) > 0; words = words[1:] {
		w := words[0]
		if slices.Contains(withNumber, w) && len(words) > 1 {
			s.values[w] = words[1]
			words = words[1:]
			continue
		}
		name, value, ok := strings.Cut(w, ":")
		if !ok {
			name, value, ok = strings.Cut(w, "=") // netlink
		}
		if !ok {
			value = "yes"
			if regexp.MustCompile(`^[<-]-[->]$`).MatchString(w) {
				name, value = "shutdown", w
			}
		}
		s.values[name] = value
	}
	return s
}

// num is a field as a number, 0 where there is none.
func numOf(f fields, name string) uint64 {
	n, _ := strconv.ParseUint(f[name], 10, 64)
	return n
}

// ssShow is how ss would print a field.
type ssShow func(f fields) string

func ssPlain(name string) ssShow { return func(f fields) string { return f[name] } }

// ssMilli is microseconds as milliseconds.
func ssMilli(name string) ssShow {
	return func(f fields) string { return fmt.Sprintf("%.6g", float64(numOf(f, name))/1000) }
}

func ssBits(name string) ssShow {
	return func(f fields) string { return fmt.Sprintf("%.0fbps", float64(numOf(f, name))*8) }
}

func ssOption(name, word string) ssShow {
	return func(f fields) string {
		if slices.Contains(strings.Fields(f[name]), word) {
			return "yes"
		}
		return ""
	}
}

func memoryOf(f fields) string {
	return fmt.Sprintf("r%s,rb%s,t%s,tb%s,f%s,w%s,o%s,bl%s,d%s", f["rmem"], f["rcvbuf"], f["wmem"], f["sndbuf"],
		f["fwd_alloc"], f["wmem_queued"], f["optmem"], f["sk_backlog"], f["drops"])
}

func shutdownOf(f fields) string {
	n := numOf(f, "shutdown")
	arrows := []byte("<->")
	if n&1 != 0 {
		arrows[0] = '-'
	}
	if n&2 != 0 {
		arrows[2] = '-'
	}
	return string(arrows)
}

func ssLimited(name string) ssShow {
	return func(f fields) string {
		return fmt.Sprintf("%dms", numOf(f, name)/1000)
	}
}

// words of ss and the fields that they must be equal to.
var ssWords = map[string]ssShow{
	"uid": ssPlain("uid"), "ino": ssPlain("inode"), "v6only": ssPlain("v6only"),
	"sk":     func(f fields) string { return fmt.Sprintf("%x", numOf(f, "cookie")) },
	"fwmark": func(f fields) string { return fmt.Sprintf("0x%x", numOf(f, "mark")) },
	"cgroup": ssPlain("cgroup_id"), "shutdown": shutdownOf, "skmem": memoryOf,
	"ts": ssOption("options", "timestamps"), "sack": ssOption("options", "sack"), "ecn": ssOption("options", "ecn"),
	"ecnseen": ssOption("options", "ecn_seen"), "fastopen": ssOption("options", "syn_data"), "usec_ts": ssOption("options", "usec_ts"),
	"wscale": func(f fields) string { return f["snd_wscale"] + "," + f["rcv_wscale"] },
	"rto":    ssMilli("rto"), "backoff": ssPlain("backoff"), "ato": ssMilli("ato"),
	"rtt": func(f fields) string { return ssMilli("rtt")(f) + "/" + ssMilli("rttvar")(f) },
	"mss": ssPlain("snd_mss"), "pmtu": ssPlain("pmtu"), "rcvmss": ssPlain("rcv_mss"), "advmss": ssPlain("advmss"),
	"cwnd": ssPlain("snd_cwnd"), "ssthresh": ssPlain("snd_ssthresh"),
	"bytes_sent": ssPlain("bytes_sent"), "bytes_retrans": ssPlain("bytes_retrans"),
	"bytes_acked": ssPlain("bytes_acked"), "bytes_received": ssPlain("bytes_received"),
	"segs_out": ssPlain("segs_out"), "segs_in": ssPlain("segs_in"), "data_segs_out": ssPlain("data_segs_out"), "data_segs_in": ssPlain("data_segs_in"),
	"dctcp": func(f fields) string {
		return fmt.Sprintf("ce_state:%s,alpha:%s,ab_ecn:%s,ab_tot:%s", f["dctcp_ce_state"], f["dctcp_alpha"], f["dctcp_ab_ecn"], f["dctcp_ab_tot"])
	},
	"bbr": func(f fields) string {
		s := "bw:" + ssBits("bbr_bw")(f) + ",mrtt:" + ssMilli("bbr_min_rtt")(f)
		for _, gain := range []string{"pacing_gain", "cwnd_gain"} {
			if n := numOf(f, "bbr_"+gain); n > 0 {
				s += fmt.Sprintf(",%s:%.6g", gain, float64(n)/256)
			}
		}
		return s
	},
	"pacing_rate": func(f fields) string {
		if n := numOf(f, "max_pacing_rate"); n > 0 && n != 1<<64-1 {
			return ssBits("pacing_rate")(f) + "/" + ssBits("max_pacing_rate")(f)
		}
		return ssBits("pacing_rate")(f)
	},
	"delivery_rate": ssBits("delivery_rate"), "delivered": ssPlain("delivered"), "delivered_ce": ssPlain("delivered_ce"),
	"app_limited": func(f fields) string { return map[string]string{"1": "yes"}[f["delivery_rate_app_limited"]] },
	"unacked":     ssPlain("unacked"), "lost": ssPlain("lost"), "sacked": ssPlain("sacked"), "dsack_dups": ssPlain("dsack_dups"),
	"retrans": func(f fields) string { return f["retrans"] + "/" + f["total_retrans"] },
	"fackets": ssPlain("fackets"), "reordering": ssPlain("reordering"), "reord_seen": ssPlain("reord_seen"),
	"rcv_rtt": ssMilli("rcv_rtt"), "rcv_space": ssPlain("rcv_space"), "rcv_ssthresh": ssPlain("rcv_ssthresh"),
	"notsent": ssPlain("notsent_bytes"), "minrtt": ssMilli("min_rtt"), "rcv_ooopack": ssPlain("rcv_ooopack"),
	"snd_wnd": ssPlain("snd_wnd"), "rcv_wnd": ssPlain("rcv_wnd"), "rehash": ssPlain("rehash"),
	// Packet sockets.
	"ver": ssPlain("version"), "cpy_thresh": ssPlain("copy_thresh"), "flags": func(f fields) string {
		set := strings.Fields(f["flags"])
		if f["running"] == "1" {
			set = append([]string{"running"}, set...)
		}
		return cmp.Or(strings.Join(set, " "), "0")
	},
	"ring_rx": ringOf("rx_ring_"), "ring_tx": ringOf("tx_ring_"),
	"fanout": func(f fields) string {
		return "id:" + f["fanout_id"] + ",type:" + nameOf(fanouts, int(numOf(f, "fanout_type")))
	},
	// Unix sockets: how many connections wait, of which ss shows the inodes.
	"peers": func(f fields) string { return f["pending"] },
	"dev":   devOf,
	// Netlink sockets.
	"groups": func(f fields) string {
		var mask uint32
		for _, g := range strings.Fields(f["groups"]) {
			if n, _ := strconv.Atoi(g); n <= 32 {
				mask |= 1 << (n - 1)
			}
		}
		return fmt.Sprintf("0x%08x", mask)
	},
}

var fanouts = []string{"hash", "lb", "cpu", "roll", "random", "qm"}

func ringOf(prefix string) ssShow {
	return func(f fields) string {
		return fmt.Sprintf("blk_size:%s,blk_nr:%s,frm_size:%s,frm_nr:%s,tmo:%s,features:0x%x", f[prefix+"block_size"], f[prefix+"block_nr"],
			f[prefix+"frame_size"], f[prefix+"frame_nr"], f[prefix+"retire_tmo"], numOf(f, prefix+"features"))
	}
}

// devOf is the device of a file as ss prints it: it takes the kernel's number
// for one of the C library.
func devOf(f fields) string {
	major, minor, _ := strings.Cut(f["vfs_dev"], ":")
	a, _ := strconv.ParseUint(major, 10, 32)
	b, _ := strconv.ParseUint(minor, 10, 32)
	dev := a<<20 | b
	return fmt.Sprintf("%d/%d", unix.Major(dev), unix.Minor(dev))
}

// ssMoves are the words whose numbers are of the moment of the read: the
// field must be there and may be greater by the time between the two reads.
var ssMoves = map[string]ssShow{
	"lastsnd": ssPlain("last_data_sent"), "lastrcv": ssPlain("last_data_recv"), "lastack": ssPlain("last_ack_recv"),
	"busy": ssLimited("busy_time"), "rwnd_limited": ssLimited("rwnd_limited"), "sndbuf_limited": ssLimited("sndbuf_limited"),
}

// ssLeft are the words that whydrop has no field for, and why.
var ssLeft = map[string]string{
	"send":     "made by ss of cwnd, mss and rtt, which are there",
	"cb":       "the address of a function, which no kernel tells any more",
	"bidir":    "a bit of qack, which /proc/net/tcp alone has",
	"qack":     "of /proc/net/tcp alone: the state of delayed acknowledgements",
	"opt":      "the end of a line of /proc/net as it is",
	"users":    "the fact owner tells it",
	"class_id": "shown with --tos alone",
}

// ssDerived are words that stand alone for the name of something.
func ssDerived(name string, f fields) bool {
	return name != "" && name == f["congestion"]
}

// compareSS compares what follows the columns.
func compareSS(t *testing.T, s ssSocket, f fields, seen map[string]bool) {
	t.Helper()
	for name, want := range s.values {
		if ssDerived(name, f) || ssLeft[name] != "" || strings.HasPrefix(name, "tcp-ulp-") {
			seen[name] = true
			continue
		}
		if name == "timer" {
			parts := strings.Split(want, ",") // on,612ms,0: the time runs
			if len(parts) != 3 || parts[0] != f["timer"] || parts[2] != f["timer_retrans"] || f["timer_ms"] == "" {
				t.Errorf("%v: timer %q, whydrop: %s %s %s", s.columns, want, f["timer"], f["timer_ms"], f["timer_retrans"])
			}
			seen[name] = true
			continue
		}
		if show, ok := ssMoves[name]; ok {
			seen[name] = true
			compareMoving(t, s, name, want, show(f))
			continue
		}
		show, ok := ssWords[name]
		if !ok {
			t.Errorf("%v: ss shows %s:%s, which whydrop lacks", s.columns, name, want)
			continue
		}
		seen[name] = true
		switch name {
		case "cgroup":
			want = cgroupNumber(t, want)
		case "peers":
			want = strconv.Itoa(len(strings.Fields(want)))
		case "ino":
			if f["vfs_inode"] != "" { // of a unix socket with a file
				show = ssPlain("vfs_inode")
			}
		case "sk":
			if f["portid"] != "" {
				continue // of netlink it is always 0
			}
		}
		if got := show(f); got != want {
			t.Errorf("%v: %s: ss shows %q, whydrop %q", s.columns, name, want, got)
		}
	}
}

func compareMoving(t *testing.T, s ssSocket, name, want, got string) {
	t.Helper()
	head := func(s string) (n int) {
		_, _ = fmt.Sscanf(s, "%d", &n)
		return n
	}
	if a, b := head(want), head(got); got == "" || b < a || b > a+60_000 {
		t.Errorf("%v: %s: ss showed %q, then whydrop %q", s.columns, name, want, got)
	}
}

// cgroupNumber is the number of a group that ss shows by its path, or as
// unreachable:NUMBER where it finds no path.
func cgroupNumber(t *testing.T, path string) string {
	t.Helper()
	if hex, ok := strings.CutPrefix(path, "unreachable:"); ok {
		n, err := strconv.ParseUint(hex, 16, 64)
		must(t, err)
		return decimal(n)
	}
	text, err := (&Reader{}).readFile("/proc/self/mountinfo")
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(parseMounts(text).v2.point+path, &st))
	return decimal(st.Ino)
}

// ssComplete fails where a word that the test's sockets were made for was not
// compared.
func ssComplete(t *testing.T, seen map[string]bool, names ...string) {
	t.Helper()
	for _, name := range names {
		if !seen[name] {
			t.Errorf("ss showed no %s; it showed %v", name, slices.Sorted(maps.Keys(seen)))
		}
	}
}
