package lab

// udpCsum sends datagrams whose data was damaged on its way. No socket is
// bound to the port: with one, the checksum is looked at when the application
// reads, and the kernel drops the datagram then (net/ipv4/udp.c, udp_recvmsg;
// __udp4_lib_rcv without a socket).
func udpCsum() Scenario {
	return Scenario{
		Name:  "udp-csum",
		Title: "UDP datagrams whose data does not match their checksum",
		build: func(t *topology) (*rig, error) { return damaged(t, protoUDP, -1, 1, "snmp", "Udp") },
	}
}
