package counter

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
)

// maxStatFiles is how many files of /proc/net/stat are read that are not known.
const maxStatFiles = 32

// knownStats are the files of /proc/net/stat that others read, and ip_conntrack,
// which has the numbers of nf_conntrack once more where the kernel has
// CONFIG_NF_CONNTRACK_PROC_COMPAT (3.10,
// net/ipv4/netfilter/nf_conntrack_l3proto_ipv4_compat.c; gone with 4.9).
func knownStats() []string {
	return []string{"rt_cache", "arp_cache", "ndisc_cache", "nf_conntrack", "ip_conntrack", "synproxy", "nf_flowtable"}
}

// readStats adds the sums of what else is in /proc/net/stat: the tables of
// neighbours of other protocols, such as clip_arp_cache, and what a kernel may
// add. They may be of the namespace or of the host.
func (s *Snapshot) readStats() { s.readStatsIn(thread) }

func (s *Snapshot) readStatsIn(net string) {
	dir, err := os.Open(net + "/stat")
	if errors.Is(err, fs.ErrNotExist) {
		return // that procfs is not there, others say
	}
	if err == nil {
		defer dir.Close()
		var names []string
		names, err = dir.Readdirnames(maxStatFiles)
		slices.Sort(names)
		if unknown := unknownStats(names); len(unknown) > 0 {
			s.readFiles(net, unknown)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.miss("/proc/net/stat", err)
	}
}

func unknownStats(names []string) []file {
	var files []file
	for _, name := range names {
		if !slices.Contains(knownStats(), name) {
			files = append(files, statFile(name, ""))
		}
	}
	return files
}
