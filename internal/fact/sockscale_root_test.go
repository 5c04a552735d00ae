//go:build root

package fact

import (
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestTCPInfoIsTheKernels compares the places of the members of struct
// tcp_info with those that the running kernel has.
func TestTCPInfoIsTheKernels(t *testing.T) {
	spec, err := btf.LoadKernelSpec()
	must(t, err)
	var info *btf.Struct
	must(t, spec.TypeByName("tcp_info", &info))
	ours := map[string]member{}
	for _, m := range tcpInfo {
		if m.name != "" {
			ours[m.name] = m
		}
	}
	// Read in another way, or not at all, each with the reason.
	other := map[string]string{
		"state": "it is in the message", "options": "by bits", "snd_wscale": "by bits", "rcv_wscale": "by bits",
		"delivery_rate_app_limited": "by bits", "fastopen_client_fail": "by bits",
		"accecn_fail_mode": "another meaning in each kernel", "accecn_opt_seen": "another meaning in each kernel",
		"ecn_mode": "another meaning in each kernel", "options2": "another meaning in each kernel",
	}
	found := 0
	for _, m := range info.Members {
		name := strings.TrimPrefix(m.Name, "tcpi_")
		if other[name] != "" {
			continue
		}
		size, err := btf.Sizeof(m.Type)
		must(t, err)
		want := member{name, int(m.Offset.Bytes()), size}
		if ours[name] != want {
			t.Errorf("the kernel has %+v, whydrop %+v", want, ours[name])
		}
		found++
	}
	if found < 40 {
		t.Errorf("only %d members", found)
	}
}

// TestFactsOf100000Sockets opens that many (3,000 in short mode), by several
// children because of the limit of open files, and asks for facts of them.
func TestFactsOf100000Sockets(t *testing.T) {
	if testkit.SocketChild(t, func(first, n int) string { return openAll(t, first, n) }) {
		return
	}
	n := 100_000
	if testing.Short() {
		n = 3000
	}
	testkit.InNetNS(t, func(*netlab.Namespace) {
		loadDiag(t)
		testkit.ManySockets(t, t.Name(), n)
		fd := openSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}))
		at, err := unix.Getsockname(fd)
		must(t, err)
		must(t, unix.Sendto(openSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0), make([]byte, 100), 0, at))
		n++ // the sender is bound by now, too
		for _, kind := range []string{"sockets", "udp-sockets"} {
			arg, most := "", maxSockets
			if kind == "sockets" {
				arg, most = "udp", maxDetailed
			}
			began := time.Now()
			got := (&Reader{}).Read(record.FactRequest{Kind: kind, Arg: arg}, ns)
			took := time.Since(began)
			t.Logf("%s: %d sockets in %v", kind, n, took)
			if took > 3*time.Second {
				t.Errorf("%s: it took %v", kind, took)
			}
			want := n + 1
			if want > most {
				want = most + 1 // and how many are left out
			}
			if len(got) != want || got[0].Fields["recv_q"] == "0" || got[0].Fields["inode"] != decimal(inodeOf(t, fd)) {
				t.Errorf("%s: %d facts of %d sockets, first %+v", kind, len(got), n+1, got[0])
			}
		}
		began := time.Now()
		one := one(t, "sockets", "udp "+decimal(inodeOf(t, fd)))
		if took := time.Since(began); took > 3*time.Second || one.Value == "0" {
			t.Errorf("one of them: %v, %+v", took, one)
		}
	})
}

// openAll is what the children do.
func openAll(t *testing.T, first, n int) string {
	for i := first; i < first+n; i++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Bind(fd, &unix.SockaddrInet4{Port: 10_000 + i&0x3fff, Addr: [4]byte{127, 0, byte(1 + i>>14), 1}}))
	}
	return "ready"
}
