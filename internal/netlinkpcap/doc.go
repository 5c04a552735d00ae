// Package netlinkpcap is the file that carries messages of the kernel's drop
// monitor from one machine to another: pcap of LINKTYPE_NETLINK, as dwdump and
// captures of nlmon have it and Wireshark shows it. It writes such files, and
// reads them as a record.
//
// It must not look at the host, open a socket or judge a drop. Of
// internal/probe/dropmon it uses the codec and its types alone.
package netlinkpcap
