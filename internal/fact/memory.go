package fact

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// readMemory gives what sockets may use of memory and what they use: tcp and
// udp in pages, which all namespaces share; the sizes of buffers in bytes, as
// far as the kernel has them for the namespace those of it; and the host's in
// kB.
func readMemory(q *query) error {
	used, err := q.sockstat()
	if err != nil {
		return err
	}
	q.protoMemory("tcp", used["TCP.mem"], "net/ipv4/tcp_mem")
	q.protoMemory("udp", used["UDP.mem"], "net/ipv4/udp_mem")
	q.fragMemory("frag", used["FRAG.memory"], "net/ipv4/ipfrag_")
	q.fragMemory("frag6", used["FRAG6.memory"], "net/ipv6/ip6frag_")
	for _, b := range []struct{ name, value, setting string }{
		{"rmem", "max", "net/core/rmem_"},
		{"wmem", "max", "net/core/wmem_"},
		{"optmem", "max", "net/core/optmem_"},
	} {
		f := fields{}
		q.put(f, "default", b.setting+"default")
		q.put(f, "max", b.setting+"max")
		q.setMemory(b.name, f["max"], f, b.setting+"max")
	}
	for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
		f := fields{}
		q.put3(f, "net/ipv4/"+name, "min", "default", "max")
		q.setMemory(name, f["max"], f, "net/ipv4/"+name)
	}
	for _, name := range []string{"net/ipv4/udp_rmem_min", "net/ipv4/udp_wmem_min", "net/core/mem_pcpu_rsv"} {
		f := fields{}
		q.put(f, "value", name)
		q.setMemory(name[strings.LastIndexByte(name, '/')+1:], f["value"], nil, name)
	}
	return q.hostMemory()
}

// sockstat are the values of /proc/net/sockstat and sockstat6.
func (q *query) sockstat() (map[string]string, error) {
	used := map[string]string{}
	for _, file := range []string{"sockstat", "sockstat6"} {
		s, err := q.readFile("/proc/thread-self/net/" + file)
		if file == "sockstat6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		parseSockstat(s, func(name, value string) { used[name] = value })
	}
	return used, nil
}

// protoMemory adds the pages of a protocol, and the three limits that they are
// held to: below the first is no pressure, above the last is loss. Each CPU
// holds back some pages (net.core.mem_pcpu_rsv, 256 where there is no such
// setting) before they show (net/core/sock.c, sk_memory_allocated_add).
func (q *query) protoMemory(name, pages, setting string) {
	if pages == "" {
		return
	}
	f := fields{"pages": pages}
	q.put3(f, setting, "low", "pressure", "limit")
	q.source, q.command = "/proc/net/sockstat, /proc/sys/"+setting, "cat /proc/net/sockstat /proc/sys/"+setting
	q.add(name, pages, f)
}

// fragMemory adds the bytes of fragments that wait for the rest, and the
// limits of the namespace.
func (q *query) fragMemory(name, bytes, setting string) {
	if bytes == "" {
		return
	}
	f := fields{"bytes": bytes}
	q.put(f, "high", setting+"high_thresh")
	q.put(f, "low", setting+"low_thresh")
	file := "/proc/net/sockstat"
	if name == "frag6" {
		file += "6"
	}
	q.source, q.command = file+", /proc/sys/"+setting+"high_thresh", "cat "+file+" /proc/sys/"+setting+"high_thresh"
	q.add(name, bytes, f)
}

// setMemory adds a setting, where this kernel has it.
func (q *query) setMemory(name, value string, f fields, setting string) {
	if value == "" {
		return
	}
	q.source, q.command = "/proc/sys/"+setting, "sysctl "+strings.ReplaceAll(setting, "/", ".")
	q.add(name, value, f)
}

// hostMemory adds what the host has left.
func (q *query) hostMemory() error {
	q.source, q.command = "/proc/meminfo", "cat /proc/meminfo /proc/sys/vm/min_free_kbytes"
	s, err := q.readFile("/proc/meminfo")
	if err != nil {
		return err
	}
	f := fields{"page_size": decimal(os.Getpagesize())}
	names := map[string]string{"MemTotal": "total_kb", "MemFree": "free_kb", "MemAvailable": "available_kb"}
	for line := range strings.Lines(s) {
		head, rest, _ := strings.Cut(line, ":")
		if words := strings.Fields(rest); names[head] != "" && len(words) == 2 && words[1] == "kB" {
			f[names[head]] = words[0]
		}
	}
	q.put(f, "min_free_kb", "vm/min_free_kbytes")
	q.add("host", f["available_kb"], f)
	return nil
}

// limits reads a setting of the namespace, else that of the host; it is empty
// where neither can be read.
func (q *query) limits(name string) []string {
	var text string
	read := func() (err error) {
		text, err = q.readFile("/proc/sys/" + name)
		return err
	}
	if err := read(); errors.Is(err, fs.ErrNotExist) && q.Host != nil {
		_ = q.Host(read)
	}
	return strings.Fields(text)
}

// put adds a setting that is one number, put3 one of three.
func (q *query) put(f fields, name, setting string) {
	if v := q.limits(setting); len(v) == 1 {
		f[name] = v[0]
	}
}

func (q *query) put3(f fields, setting, a, b, c string) {
	if v := q.limits(setting); len(v) == 3 {
		f[a], f[b], f[c] = v[0], v[1], v[2]
	}
}
