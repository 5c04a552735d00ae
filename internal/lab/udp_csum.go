package lab

// udpCsum sends datagrams whose data was damaged on its way. No socket is
// bound to the port: with one, the checksum is looked at when the application
// reads, and the kernel drops the datagram then (net/ipv4/udp.c, udp_recvmsg;
// __udp4_lib_rcv without a socket).
func udpCsum() Scenario {
	return Scenario{
		Name:  "udp-csum",
		Title: "UDP datagrams whose data does not match their checksum",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
			frame, err := newPacket(r.flow).bytes()
			if err != nil {
				return nil, err
			}
			frame[len(frame)-1] ^= 1
			if err := r.sendFrame(t, frame); err != nil {
				return nil, err
			}
			return r, r.countIn(t, "snmp", "Udp", "InCsumErrors", "UdpInCsumErrors")
		},
	}
}
