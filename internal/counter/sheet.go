package counter

import (
	"math"
	"strconv"

	"github.com/whydrop/whydrop/record"
)

// sheet holds the values of one text. Filled again from a text with the same
// names it needs no memory: the kernel's files change in their numbers alone,
// but for a column that comes now and then.
type sheet struct {
	source string
	// table is the table of names that do not say theirs.
	table []byte
	// command shows a value to a person; nil shows the file.
	command func(table, field string, level bool) string
	// levels says that no value is a counter.
	levels bool
	// device is what all values are of.
	device record.Device
	// online gives the CPUs that are online, for a file whose lines do not say
	// theirs; nil where it is not known.
	online func() []uint64

	show   string // the command where there is none
	values []Value
	parts  []int // of each value, or whole
	n      int   // how many the current text has given
	rows   []uint64
}

// whole is the part that a total is of.
const whole = -1

// maxCPUs is how many CPUs a file gives values of one by one. The kernel can
// have 8192 (arch/x86/Kconfig, NR_CPUS); the sums are of all.
const maxCPUs = 1024

func (s *sheet) reset() { s.n = 0 }

// all are the values of the last text. They change with the next.
func (s *sheet) all() []Value { return s.values[:s.n] }

// put adds a value: of a CPU, or of none.
func (s *sheet) put(table, field []byte, cpu int, v uint64) {
	if s.n < len(s.values) && s.parts[s.n] == cpu && isNamed(s.values[s.n].Name, table, field) {
		s.values[s.n].Value = v
		s.n++
		return
	}
	s.add(table, field, cpu, v)
}

// isNamed says whether a name is TABLE.FIELD, without making one.
func isNamed(name string, table, field []byte) bool {
	n := len(table)
	return len(name) == n+1+len(field) && name[:n] == string(table) && name[n+1:] == string(field) && name[n] == '.'
}

// add puts a value where another was, or none. What came behind that is made
// anew.
func (s *sheet) add(table, field []byte, cpu int, v uint64) {
	name := string(append(append(append(make([]byte, 0, 64), table...), '.'), field...))
	level := s.levels || isLevel(name[:len(table)], name[len(table)+1:])
	value := Value{Name: name, Device: s.device, Level: level, Value: v, Source: s.source}
	if cpu != whole {
		value.Object = "cpu " + strconv.Itoa(cpu)
	}
	if s.command != nil {
		value.Command = s.command(name[:len(table)], name[len(table)+1:], level)
	} else {
		if s.show == "" {
			s.show = "cat " + s.source
		}
		value.Command = s.show
	}
	s.values = append(s.values[:s.n], value)
	s.parts = append(s.parts[:s.n], cpu)
	s.n++
}

// begin makes ready for a text.
func (s *sheet) begin(text []byte) {
	s.n = 0
	if s.values == nil {
		// A value has some 20 bytes of a text.
		s.values, s.parts = make([]Value, 0, len(text)/20), make([]int, 0, len(text)/20)
	}
}

// isLevel says whether a column is no counter: a setting, or a number of
// something now.
func isLevel(table, field string) bool {
	switch table {
	case "Ip": // net/ipv4/proc.c, snmp_seq_show
		return field == "Forwarding" || field == "DefaultTTL"
	case "Tcp": // net/ipv4/proc.c, snmp4_tcp_list
		switch field {
		case "RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "CurrEstab":
			return true
		}
	case "MPTcpExt": // net/mptcp/mib.c
		return field == "MPCurrEstab"
	case "Sctp": // net/sctp/proc.c
		return field == "CurrEstab"
	case "tls": // net/tls/tls_proc.c
		return len(field) > 7 && field[:7] == "TlsCurr"
	case "softnet": // net/core/net-procfs.c, softnet_seq_show
		return field == "backlog_len" || field == "input_qlen" || field == "process_qlen"
	}
	return field == "entries" // of /proc/net/stat, the same in every line
}

// word cuts the first word off b. It is empty where there is none.
func word(b []byte) (first, rest []byte) {
	i := 0
	for i < len(b) && b[i] <= ' ' {
		i++
	}
	j := i
	for j < len(b) && b[j] > ' ' {
		j++
	}
	return b[i:j], b[j:]
}

func countWords(b []byte) (n int) {
	for w, rest := word(b); len(w) > 0; w, rest = word(rest) {
		n++
	}
	return n
}

// decimal parses a number without a sign. Where it is false, decimalError says
// why.
func decimal(b []byte) (v uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || v > math.MaxUint64/10 || v*10 > math.MaxUint64-d {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}

func decimalError(b []byte) error {
	if isNegative(b) {
		_, err := strconv.ParseInt(string(b), 10, 64)
		return err
	}
	_, err := strconv.ParseUint(string(b), 10, 64)
	return err
}

// isNegative says whether a number has a sign. What is below 0 is no counter,
// and as a level it says "none": Tcp.MaxConn is -1.
func isNegative(b []byte) bool { return len(b) > 1 && b[0] == '-' }

// hexadecimal parses a number of at most so many bits. Where it is false,
// hexadecimalError says why.
func hexadecimal(b []byte, bits int) (v uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c)
		switch {
		case '0' <= c && c <= '9':
			d -= '0'
		case 'a' <= c && c <= 'f':
			d -= 'a' - 10
		case 'A' <= c && c <= 'F':
			d -= 'A' - 10
		default:
			return 0, false
		}
		if v > math.MaxUint64>>4 {
			return 0, false
		}
		v = v<<4 | d
	}
	return v, bits == 64 || v>>bits == 0
}

func hexadecimalError(b []byte, bits int) error {
	_, err := strconv.ParseUint(string(b), 16, bits)
	return err
}
