package fact

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
)

// maxGroups bounds how many memberships are listed.
const maxGroups = 1000

// readGroups gives the multicast groups that devices of the namespace have
// joined, for programs or for the kernel itself.
func readGroups(q *query) error {
	for _, t := range []struct {
		file  string
		parse func(text string, group func(group))
	}{{"igmp", parseIGMP}, {"igmp6", parseIGMP6}} {
		q.source, q.command = "/proc/net/"+t.file, "ip maddr show"
		text, err := q.readFile("/proc/thread-self/net/" + t.file)
		if t.file == "igmp6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		t.parse(text, func(g group) {
			if len(q.facts) < maxGroups {
				q.add(g.addr.String()+" "+g.device, strconv.FormatUint(g.users, 10), fields{
					"group": g.addr.String(), "dev": g.device,
				})
			}
		})
	}
	return nil
}

// group is a group that a device has joined, and how often.
type group struct {
	addr   netip.Addr
	device string
	users  uint64
}

// parseIGMP reads /proc/net/igmp: a line for each device, which its index
// begins, and under it one for each group, indented (igmp_mc_seq_show of
// net/ipv4/igmp.c, 5.10 to 7.2). The address is a number in the CPU's order.
func parseIGMP(text string, found func(group)) {
	device := ""
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		if line[0] != '\t' {
			device = words[1]
			continue
		}
		n, err := strconv.ParseUint(words[0], 16, 32)
		users, uerr := strconv.ParseUint(words[1], 10, 64)
		if err != nil || uerr != nil || device == "" {
			continue
		}
		var addr [4]byte
		binary.NativeEndian.PutUint32(addr[:], uint32(n))
		found(group{netip.AddrFrom4(addr), device, users})
	}
}

// parseIGMP6 reads /proc/net/igmp6: a line for each membership, with the
// device, the address and how often (igmp6_mc_seq_show of net/ipv6/mcast.c).
func parseIGMP6(text string, found func(group)) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 4 {
			continue
		}
		addr, err := hex.DecodeString(words[2])
		users, uerr := strconv.ParseUint(words[3], 10, 64)
		if err != nil || uerr != nil || len(addr) != 16 {
			continue
		}
		found(group{netip.AddrFrom16([16]byte(addr)), words[1], users})
	}
}
