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
	_, total := old.find(key{name: v.Name})
	return total && s.whole(listOf(v))
}
