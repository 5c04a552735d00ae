package counter

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// thread is where procfs shows the network of the calling thread: /proc/net
// is that of the process's main thread (fs/proc/proc_net.c).
const thread = "/proc/thread-self/net"

// procfs is where the files are that no namespace has for itself.
const procfs = "/proc"

// file is a source below /proc/net and what makes values of its text: scan, or
// parse for one that is not read often.
type file struct {
	name  string
	scan  func(s *sheet, text []byte) error
	parse func(text []byte, source string) ([]Value, error)
	// proc is set for a file that is below /proc itself.
	proc bool
	// table, levels, command and online are as in sheet.
	table   string
	levels  bool
	command func(table, field string, level bool) string
	online  func() []uint64
	// always is set for a file that every kernel has in the place where it is
	// to be read, and says why it is not elsewhere.
	always string
}

func (f file) source() string {
	if f.proc {
		return procfs + "/" + f.name
	}
	return "/proc/net/" + f.name
}

// netnsFiles are the files that a namespace has for itself.
func netnsFiles() []file {
	return []file{
		{name: "snmp", scan: scanTables, command: nstat("/proc/net/snmp")},
		{name: "netstat", scan: scanTables, command: nstat("/proc/net/netstat")},
		{name: "snmp6", scan: scanSNMP6, table: "snmp6", command: nstat("/proc/net/snmp6")},
		{name: "sockstat", scan: scanSockstat, levels: true},
		{name: "sockstat6", scan: scanSockstat, levels: true},
		{name: "sctp/snmp", scan: scanSCTP, table: "sctp", command: nstat("/proc/net/sctp/snmp")},
		{name: "tls_stat", scan: scanOneTable, table: "tls"},
		{name: "xfrm_stat", scan: scanOneTable, table: "xfrm"},
		{name: "stat/nf_conntrack", parse: parseConntrack},
		{name: "stat/nf_flowtable", scan: scanFlowtable, table: "nf_flowtable", levels: true},
	}
}

// hostFiles are the files that show the same numbers in every namespace, as
// far as they exist there.
func hostFiles() []file {
	return []file{
		{name: "softnet_stat", scan: scanSoftnet, table: "softnet", online: onlineCPUs},
		{name: "softirqs", scan: scanSoftirqs, table: "softirqs", proc: true},
		statFile("rt_cache", ""),
		// net/core/neighbour.c, neigh_table_init makes it in init_net alone.
		statFile("arp_cache", "it is in the initial network namespace alone, and this is another"),
		statFile("ndisc_cache", ""),
	}
}

// statFile is a file of /proc/net/stat.
func statFile(name, always string) file {
	command := lnstat(name)
	return file{
		name: "stat/" + name, scan: scanStat, table: name, always: always,
		command: func(string, string, bool) string { return command },
	}
}

// fileSet reads files, again and again if need be: it keeps them open, and what
// it made of their texts.
type fileSet struct {
	net, proc string // directories
	files     []*openFile
	text      []byte
}

type openFile struct {
	file
	from string // its source
	f    *os.File
	sheet
}

func newFileSet(net, proc string, files []file) *fileSet {
	set := &fileSet{net: net, proc: proc}
	for _, f := range files {
		o := &openFile{file: f, from: f.source()}
		o.sheet = sheet{
			source: o.from, table: []byte(f.table), levels: f.levels, command: f.command, online: f.online,
		}
		set.files = append(set.files, o)
	}
	return set
}

// readFiles adds the values of files below dir.
func (s *Snapshot) readFiles(dir string, files []file) {
	set := newFileSet(dir, procfs, files)
	defer set.close()
	set.read(s)
}

// close closes the files. They are open for reading alone, so no error of that
// matters.
func (set *fileSet) close() {
	for _, f := range set.files {
		f.close()
	}
}

func (f *openFile) close() {
	if f.f != nil {
		f.f.Close()
		f.f = nil
	}
}

// read adds the values of all files.
func (set *fileSet) read(s *Snapshot) {
	// One look-up of the namespace for all of them, where one is not open.
	net, proc := directory{path: set.net}, directory{path: set.proc}
	defer net.close()
	defer proc.close()
	for _, f := range set.files {
		in := &net
		if f.proc {
			in = &proc
		}
		if err := set.readOne(in, f, s); err != nil {
			s.miss(f.from, err)
		}
	}
}

// directory is opened when the first of its files is.
type directory struct {
	path string
	root *os.Root
	err  error
}

// errAbsent says that a directory does not have a file. Where the directory
// itself is missing that is another error: without procfs nothing would be
// there, which is not the same as a kernel that lacks each of the files.
var errAbsent = errors.New("not there")

func (d *directory) open(name string) (*os.File, error) {
	if d.root == nil && d.err == nil {
		d.root, d.err = os.OpenRoot(d.path)
	}
	if d.err != nil {
		return nil, d.err
	}
	f, err := d.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errAbsent
	}
	return f, err
}

func (d *directory) close() {
	if d.root != nil {
		d.root.Close()
	}
}

// readOne adds the values of a file. One that does not exist has none.
func (set *fileSet) readOne(in *directory, f *openFile, s *Snapshot) error {
	text, err := set.content(in, f)
	switch {
	case err == errAbsent && f.always != "":
		return errors.New(f.always)
	case err == errAbsent:
		return nil
	case err != nil:
		return err
	case f.scan == nil:
		values, err := f.parse(text, f.from)
		s.Values = append(s.Values, values...)
		return err
	}
	err = f.scan(&f.sheet, text)
	s.Values = append(s.Values, f.all()...)
	return err
}

// content is the text of a file. It changes with the next file.
func (set *fileSet) content(in *directory, f *openFile) (text []byte, err error) {
	if f.f != nil {
		if text, err = set.readAll(f); err == nil {
			return text, nil
		}
		f.close() // it went away with its module, and may be back
	}
	if f.f, err = in.open(f.name); err != nil {
		f.f = nil
		return nil, err
	}
	return set.readAll(f)
}

// maxFile bounds what is read of a file: softnet_stat has 135 bytes for each
// of at most 8192 CPUs, the others less.
const maxFile = 4 << 20

// readAll reads a whole file of procfs, whose size is not known before, from
// its beginning.
func (set *fileSet) readAll(f *openFile) ([]byte, error) {
	if set.text == nil {
		set.text = make([]byte, 16<<10) // enough for each file of a usual host
	}
	for n := 0; ; {
		m, err := f.f.ReadAt(set.text[n:], int64(n))
		n += m
		switch {
		case n > maxFile:
			return nil, fmt.Errorf("read %s: longer than %d bytes", f.name, maxFile)
		case err == io.EOF:
			return set.text[:n], nil
		case err != nil:
			return nil, err
		}
		set.text = append(set.text, make([]byte, len(set.text))...)
	}
}
