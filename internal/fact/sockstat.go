package fact

import (
	"errors"
	"io/fs"
	"strings"
)

// readSockstat gives the values of /proc/net/sockstat and sockstat6.
func readSockstat(q *query) error {
	for _, file := range []string{"sockstat", "sockstat6"} {
		q.source, q.command = "/proc/net/"+file, "cat /proc/net/"+file
		s, err := q.readFile("/proc/thread-self/net/" + file)
		if file == "sockstat6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		parseSockstat(s, func(name, value string) { q.add(name, value, nil) })
	}
	return nil
}

// parseSockstat reads lines such as "UDP: inuse 2 mem 1" (sockstat_seq_show of
// net/ipv4/proc.c) and gives UDP.inuse, UDP.mem.
func parseSockstat(s string, value func(name, value string)) {
	for line := range strings.Lines(s) {
		head, rest, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		words := strings.Fields(rest)
		for i := 0; i+1 < len(words); i += 2 {
			value(head+"."+words[i], words[i+1])
		}
	}
}
