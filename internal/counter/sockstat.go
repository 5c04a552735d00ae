package counter

import (
	"bytes"
	"fmt"
)

// parseSockstat makes levels of /proc/net/sockstat or sockstat6.
func parseSockstat(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, levels: true}
	err := scanSockstat(&s, text)
	return s.all(), err
}

// scanSockstat parses a line for each kind of sockets: its name and a colon,
// then pairs of a name and a number (net/ipv4/proc.c, sockstat_seq_show;
// net/ipv6/proc.c, sockstat6_seq_show; net/socket.c, socket_seq_show). All are
// levels. The tw and inuse of TCP, UDP, RAW and FRAG and the memory of FRAG are of
// the namespace, orphan, alloc and mem of the whole host.
func scanSockstat(s *sheet, text []byte) error {
	s.begin(text)
	var cut error
	var errs []error
	for line := range lines(text, &cut) {
		w, _ := word(line)
		if len(w) == 0 {
			continue
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			errs = append(errs, fmt.Errorf("line %q names no kind of sockets", clip(line)))
			continue
		}
		if err := s.sockets(line[:colon], line[colon+1:]); err != nil {
			errs = append(errs, err)
		}
	}
	return parseErrors(s.source, errs, cut)
}

func (s *sheet) sockets(table, pairs []byte) error {
	for rest := pairs; ; {
		var name, number []byte
		name, rest = word(rest)
		number, rest = word(rest)
		if len(name) == 0 {
			return nil
		}
		if len(number) == 0 {
			return fmt.Errorf("table %q: %q has no value", clip(table), clip(name))
		}
		if err := s.number(table, name, number); err != nil {
			return err
		}
	}
}
