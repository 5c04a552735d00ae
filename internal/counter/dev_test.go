package counter

import (
	"bytes"
	"errors"
)

// scanDev parses /proc/net/dev, two lines of headings and one for each device
// (net/core/net-procfs.c, dev_seq_show). whydrop does not read it: rtnetlink
// says the same and more. The tests compare the two, and the speed of the six
// files is measured with it.
func scanDev(s *sheet, text []byte) error {
	s.reset()
	var cut error
	n := 0
	for line := range lines(text, &cut) {
		if n++; n <= 2 {
			continue
		}
		colon := bytes.LastIndexByte(line, ':') // a name can have one
		if colon < 0 {
			return errors.New("no device")
		}
		name, _ := word(line[:colon])
		rest := line[colon+1:]
		for _, field := range devFields {
			var w []byte
			w, rest = word(rest)
			v, ok := decimal(w)
			if !ok {
				return decimalError(w)
			}
			s.put(name, field, whole, v)
		}
	}
	return cut
}

// devFields are its columns. drop holds rx_dropped and rx_missed_errors, and
// frame, carrier and errs are sums too (dev_seq_printf_stats).
var devFields = [][]byte{
	[]byte("rx_bytes"), []byte("rx_packets"), []byte("rx_errors"), []byte("rx_drop"), []byte("rx_fifo_errors"),
	[]byte("rx_frame"), []byte("rx_compressed"), []byte("multicast"),
	[]byte("tx_bytes"), []byte("tx_packets"), []byte("tx_errors"), []byte("tx_dropped"), []byte("tx_fifo_errors"),
	[]byte("collisions"), []byte("tx_carrier"), []byte("tx_compressed"),
}
