package counter

import "strings"

// isSocket says whether a value is that of a single socket.
func isSocket(v *Value) bool {
	table, field, _ := strings.Cut(v.Name, ".")
	return field == "drops" && strings.HasPrefix(v.Object, "socket ") && isSocketTable(table)
}

func isSocketTable(table string) bool {
	switch table {
	case "tcp", "udp", "udplite", "raw", "ping", "netlink", "packet", "unix":
		return true
	}
	return false
}

// sawSockets says whether a snapshot has each socket of the kind of v that had
// lost something: its total is there then, and nothing was left out.
func (s *Snapshot) sawSockets(v *Value, old *earlier) bool {
	table, _, _ := strings.Cut(v.Name, ".")
	_, total := old.find(key{name: v.Name})
	return total && s.whole(missingSockets(table))
}

// closedSockets is what the sockets had lost, by the name of the counter, that
// were closed between the two snapshots. They took it along: it is not in the
// second total any more.
func closedSockets(before, after Snapshot) map[string]uint64 {
	closed := map[string]uint64{}
	there := map[key]bool{}
	for i := range after.Values {
		if v := &after.Values[i]; isSocket(v) {
			there[key{name: v.Name, object: v.Object}] = true
		}
	}
	for i := range before.Values {
		v := &before.Values[i]
		table, _, _ := strings.Cut(v.Name, ".")
		if isSocket(v) && !there[key{name: v.Name, object: v.Object}] && after.whole(missingSockets(table)) {
			closed[v.Name] += v.Value
		}
	}
	return closed
}
