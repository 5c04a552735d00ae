package fact

import (
	"errors"
	"io/fs"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Endpoint is a socket with its two ends. The port of Peer is 0 where it is not
// connected.
type Endpoint struct {
	Inode       uint64
	Proto       uint8
	Local, Peer netip.AddrPort
}

// Endpoints hands the sockets of TCP, UDP and UDP-Lite to each, as far as they are
// of the network namespace of the calling thread and a process holds them. It asks
// /proc/net, which loads no module; an error says which list was not read to its
// end.
func (r *Reader) Endpoints(each func(Endpoint)) error {
	var errs []error
	for _, p := range []struct {
		file  string
		proto uint8
	}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}, {"udplite", unix.IPPROTO_UDPLITE}} {
		err := r.procSockets(p.file, func(s *socket) {
			if s.inode != 0 {
				each(Endpoint{uint64(s.inode), p.proto, s.local, s.peer})
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel need not have UDP-Lite
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
