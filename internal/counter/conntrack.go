package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// The questions to ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	ctCPUSource    = "nfnetlink IPCTNL_MSG_CT_GET_STATS_CPU"
	ctExpCPUSource = "nfnetlink IPCTNL_MSG_EXP_GET_STATS_CPU"
	ctGetStatsCPU  = 4
	expGetStatsCPU = 3
)

// ctStats are the names of CTA_STATS_* as /proc/net/stat/nf_conntrack has
// them, so that the parts have the names of their sum: error is icmp_error
// there, clash_resolve is clashres, and chain_toolong is chainlength
// (net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show; 5.15 to 7.2).
func ctStats() []string {
	return []string{
		1: "searched", 2: "found", 3: "new", 4: "invalid", 5: "ignore", 6: "delete", 7: "delete_list", 8: "insert",
		9: "insert_failed", 10: "drop", 11: "early_drop", 12: "icmp_error", 13: "search_restart", 14: "clashres", 15: "chainlength",
	}
}

// ctExpStats are the names of CTA_STATS_EXP_*.
func ctExpStats() []string { return []string{1: "expect_new", 2: "expect_create", 3: "expect_delete"} }

// readConntrackCPUs adds the counters of connection tracking of each CPU. Their
// sums come from /proc/net/stat/nf_conntrack; where a kernel was built without
// that file they are added here.
func (s *Snapshot) readConntrackCPUs() {
	ok, err := live.Has("nf_conntrack", "nf_conntrack_netlink")
	if err != nil {
		s.miss(ctCPUSource, err)
	}
	if !ok {
		return
	}
	s.readCtStats(ctCPUSource, unix.NFNL_SUBSYS_CTNETLINK, ctGetStatsCPU, ctStats())
	s.readCtStats(ctExpCPUSource, unix.NFNL_SUBSYS_CTNETLINK_EXP, expGetStatsCPU, ctExpStats())
}

// readCtStats adds one kind of them. An answer has the number of the question,
// and always the first of the subsystems.
func (s *Snapshot) readCtStats(source string, subsystem, question int, names []string) {
	var values []Value
	var errs []error
	err := kernelnet.Dump(unix.NETLINK_NETFILTER, subsystem<<8|question, uint16(unix.NFNL_SUBSYS_CTNETLINK<<8|question), make(kernelnet.Message, kernelnet.SizeofNfgen),
		func() { values, errs = nil, nil }, func(m []byte) error {
			v, err := parseCtStats(m, source, names)
			values = append(values, v...)
			errs = append(errs, err)
			return nil
		})
	if err != nil && !noSubsystem(err) {
		s.miss(source, kernelnet.NeedsCap(err, netAdmin))
	}
	if err := parseError(source, errs...); err != nil {
		s.miss(source, err)
	}
	s.Values = append(s.Values, values...)
	if err == nil && errors.Join(errs...) == nil {
		s.Values = append(s.Values, ctSums(s.Values, values)...)
	}
}

// ctSums adds up the CPUs for what has no sum among all values.
func ctSums(all, cpus []Value) []Value {
	known := map[string]bool{}
	for _, v := range all {
		known[v.Name] = known[v.Name] || v.Object == ""
	}
	var sums []Value
	at := map[string]int{}
	for _, v := range cpus {
		if known[v.Name] {
			continue
		}
		i, ok := at[v.Name]
		if !ok {
			i = len(sums)
			at[v.Name] = i
			sum := v
			sum.Object, sum.Value = "", 0
			sums = append(sums, sum)
		}
		sums[i].Value += v.Value
	}
	return sums
}

// parseCtStats parses the counters of one CPU, whose number is in the header
// (net/netfilter/nf_conntrack_netlink.c, ctnetlink_ct_stat_cpu_fill_info,
// ctnetlink_exp_stat_fill_info). They have 32 bits.
func parseCtStats(m []byte, source string, names []string) ([]Value, error) {
	var values []Value
	err := kernelnet.Attributes(m, kernelnet.SizeofNfgen, func(kind int, b []byte) {
		if len(b) < 4 {
			return
		}
		name := "stats_" + strconv.Itoa(kind) // newer than this program
		if kind < len(names) && names[kind] != "" {
			name = names[kind]
		}
		values = append(values, Value{
			Name: "nf_conntrack." + name, Object: "cpu " + strconv.Itoa(int(binary.BigEndian.Uint16(m[2:]))),
			Value: uint64(binary.BigEndian.Uint32(b)), Source: source, Command: "conntrack -S",
		})
	})
	if err != nil {
		return nil, fmt.Errorf("counters of a CPU: %w", err)
	}
	return values, nil
}
