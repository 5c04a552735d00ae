// Package fact reads settings and states of the host when somebody asks for
// them, one file for each kind: a sysctl, a route, the listeners, a firewall's
// chains. knowledge/causes/README.md lists the kinds, their arguments and
// fields.
//
// A read changes nothing: it must not load a module, create a table, or write
// a setting. It must not use eBPF, so that facts are there where BPF is not,
// nor judge what it reads.
package fact

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

// None is the value of a fact whose answer is "there is none".
const None = "none"

// Reader reads facts in the network namespace of the calling thread.
type Reader struct {
	// Host runs a function in the host's network namespace, for settings that
	// exist nowhere else; nil where that namespace cannot be entered.
	Host func(fn func() error) error

	// root is put before the paths of files; empty is the live system.
	root string
}

// kind is one kind of facts. read gets the argument that check accepted.
type kind struct {
	check func(arg string) error
	read  func(q *query) error
}

var kinds = map[string]kind{
	"addresses":         {noArg, readAddresses},
	"bpf-programs":      {checkOptionalDevice, readPrograms},
	"bridge-fdb":        {checkFDB, readFDB},
	"bridge-ports":      {checkDevice, readBridgePorts},
	"cgroup":            {checkCgroup, readCgroup},
	"classes":           {checkDevice, readClasses},
	"conntrack":         {noArg, readConntrack},
	"conntrack-entries": {checkEntries, readEntries},
	"firewall":          {noArg, readFirewall},
	"groups":            {noArg, readGroups},
	"ethtool":           {checkDevice, readEthtool},
	"iptables-legacy":   {noArg, readIptablesLegacy},
	"irqs":              {checkDevice, readIRQs},
	"link":              {checkDevice, readLink},
	"memory":            {noArg, readMemory},
	"neigh":             {checkNeigh, readNeigh},
	"neighbours":        {noArg, readNeighbours},
	"nfqueues":          {noArg, readQueues},
	"nft-chains":        {noArg, readNftChains},
	"qdiscs":            {checkDevice, readQdiscs},
	"route":             {checkRoute, readRoute},
	"routes":            {noArg, readRoutes},
	"rps":               {checkDevice, readRPS},
	"rules":             {noArg, readRules},
	"sockets":           {checkSockets, readSockets},
	"sockstat":          {noArg, readSockstat},
	"sysctl":            {checkSysctl, readSysctl},
	"tc-filters":        {checkDevice, readFilters},
	"tcp-listeners":     {noArg, readListeners},
	"tcp-states":        {noArg, readStates},
	"udp-sockets":       {noArg, readUDP},
}

// Kinds returns the kinds of facts, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Check says whether a request is well-formed: the kind exists and its
// argument, in which no ${...} is left, is of the kind's form.
func Check(kind, arg string) error {
	k, ok := kinds[kind]
	if !ok {
		return fmt.Errorf("fact %q: no such kind", kind)
	}
	if err := k.check(arg); err != nil {
		return fmt.Errorf("fact %s: %w", kind, err)
	}
	return nil
}

// query is a request that is being answered.
type query struct {
	*Reader
	arg string
	// source and command are those of the facts that are added from then on,
	// and of the answer where there is none.
	source, command string
	// hostWide is set where the answer does not belong to the namespace.
	hostWide bool
	facts    []record.Fact
}

// fields are the parts of a fact.
type fields = map[string]string

func (q *query) add(name, value string, f fields) {
	q.facts = append(q.facts, record.Fact{Name: name, Value: value, Fields: f, Source: q.source, Command: q.command})
}

// missing adds what could not be read.
func (q *query) missing(why string) {
	q.facts = append(q.facts, record.Fact{Name: q.arg, Missing: why, Source: q.source, Command: q.command})
}

// Read answers a request in the network namespace of the calling thread, which
// ns names. It gives at least one fact: the value of one is "none" where there
// is nothing of the kind, and Missing says why something is not known.
func (r *Reader) Read(req record.FactRequest, ns record.NetNS) []record.Fact {
	q := query{Reader: r, arg: req.Arg}
	err := Check(req.Kind, req.Arg)
	if err == nil {
		err = kinds[req.Kind].read(&q)
	}
	switch {
	case err != nil:
		q.missing(err.Error())
	case len(q.facts) == 0:
		q.add("", None, nil)
	}
	for i := range q.facts {
		f := &q.facts[i]
		f.Kind, f.Request = req.Kind, req.Arg
		if f.Name == "" {
			f.Name = req.Arg
		}
		if f.Name == "" {
			f.Name = req.Kind
		}
		if !q.hostWide {
			f.NetNS = ns
		}
	}
	return q.facts
}

func noArg(arg string) error {
	if arg != "" {
		return fmt.Errorf("argument %q: it takes none", arg)
	}
	return nil
}

// checkDevice holds a name to what the kernel accepts (dev_valid_name of
// net/core/dev.c, IFNAMSIZ).
func checkDevice(name string) error {
	bad := func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == 0x7f }
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("argument %q: not a name of a device", name)
	}
	return nil
}

// maxFile is more than any file read here has, but for the lists of sockets,
// which are read line by line.
const maxFile = 1 << 20

func (r *Reader) path(path string) string { return filepath.Join("/", r.root, path) }

// has says whether parts of the kernel that may be modules are there. Asking
// such a part over netlink would load it.
func (r *Reader) has(names ...string) (bool, error) {
	return kernelnet.NewModules(r.root).Has(names...)
}

func (r *Reader) readFile(path string) (string, error) {
	f, err := os.Open(r.path(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b), err
}

// shell quotes a word for a command line. Names of devices, tables and chains
// may hold anything, and whoever made them need not be who types the command.
func shell(word string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@%+=,", r)
	}
	if word != "" && strings.Trim(word, "-") != "" && !strings.ContainsFunc(word, func(r rune) bool { return !safe(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
