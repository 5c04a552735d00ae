package observe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/internal/fact"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/owner"
	"github.com/whydrop/whydrop/record"
)

// The kinds of facts that are answered here and not by internal/fact.
const (
	kindNetNS = "netns"
	kindOwner = "owner"
)

// CheckFact says whether a request for facts is well-formed: its kind exists,
// and the argument is of the kind's form.
func CheckFact(kind, arg string) error {
	switch kind {
	case kindOwner:
		if n, err := strconv.ParseUint(arg, 10, 64); err != nil || n == 0 {
			return fmt.Errorf("fact owner: %q is not the inode of a socket", arg)
		}
		return nil
	case kindNetNS:
		if arg != "" {
			return fmt.Errorf("fact netns: argument %q: it takes none", arg)
		}
		return nil
	}
	return fact.Check(kind, arg)
}

// errGone is why nothing of a namespace can be read that is not found.
var errGone = errors.New("the network namespace is gone, or nothing leads to it")

// Facts reads what is asked for, entering each network namespace once. Each
// request is answered, in the order of the requests, with at least one fact:
// its Missing says why something could not be read. Facts for namespace 0 are
// read in that of the host and have the zero NetNS. The second result says
// which namespaces could not be looked into.
func Facts(requests []record.FactRequest) ([]record.Fact, []record.Blind) {
	if len(requests) == 0 {
		return nil, nil
	}
	names, err := netns.NewNames()
	if err != nil {
		return failed(requests, err), nil
	}
	r := newFactReader(names)
	answers := make([][]record.Fact, len(requests))
	r.owners(requests, answers)
	for _, inode := range spacesOf(requests) {
		r.answer(inode, requests, answers)
	}
	return joinFacts(requests, answers), r.lacks.blind()
}

// failed answers every request with the same excuse.
func failed(requests []record.FactRequest, err error) []record.Fact {
	var out []record.Fact
	for _, req := range requests {
		out = append(out, missing(req, record.NetNS{Inode: req.NetNS}, err.Error()))
	}
	return out
}

func missing(req record.FactRequest, ns record.NetNS, why string) record.Fact {
	name := req.Arg
	if name == "" {
		name = req.Kind
	}
	return record.Fact{Kind: req.Kind, Request: req.Arg, Name: name, NetNS: ns, Missing: why}
}

// factReader finds its way to namespaces by their inodes.
type factReader struct {
	spaces map[uint32]netns.Namespace
	host   *netns.Namespace // nil where it cannot be told
	reader fact.Reader
	lacks  lacks
}

func newFactReader(names *netns.Names) *factReader {
	r := &factReader{spaces: map[uint32]netns.Namespace{}}
	found, _ := names.List()
	for i, ns := range found {
		r.spaces[ns.Inode] = ns
		if ns.Name == netns.Host {
			r.host = &found[i]
			r.reader.Host = r.host.Do
		}
	}
	return r
}

// owners answers all requests for owners with one look at the processes, which
// are of no network namespace.
func (r *factReader) owners(requests []record.FactRequest, answers [][]record.Fact) {
	var inodes []uint64
	var which []int
	for i, req := range requests {
		if req.Kind != kindOwner {
			continue
		}
		ns := record.NetNS{Inode: req.NetNS, Name: r.spaces[req.NetNS].Name}
		if err := CheckFact(req.Kind, req.Arg); err != nil {
			answers[i] = []record.Fact{missing(req, ns, err.Error())}
			continue
		}
		inode, _ := strconv.ParseUint(req.Arg, 10, 64) // checked above
		inodes, which = append(inodes, inode), append(which, i)
	}
	if len(inodes) == 0 {
		return
	}
	for j, f := range owner.Facts(inodes, record.NetNS{}) {
		req := requests[which[j]]
		f.NetNS = record.NetNS{Inode: req.NetNS, Name: r.spaces[req.NetNS].Name}
		f.Request = req.Arg
		answers[which[j]] = []record.Fact{f}
	}
}

// spacesOf are the namespaces of requests in the order of their first one.
func spacesOf(requests []record.FactRequest) []uint32 {
	var list []uint32
	seen := map[uint32]bool{}
	for _, req := range requests {
		if !seen[req.NetNS] {
			seen[req.NetNS] = true
			list = append(list, req.NetNS)
		}
	}
	return list
}

// answer reads all that is asked of one namespace.
func (r *factReader) answer(inode uint32, requests []record.FactRequest, answers [][]record.Fact) {
	ns := record.NetNS{Inode: inode}
	space, known := r.spaces[inode]
	switch {
	case inode == 0 && r.host != nil:
		space, known = *r.host, true
	case inode == 0:
		space = netns.Namespace{Name: netns.Own} // read where the program is
	default:
		ns.Name = space.Name
	}
	read := func() error {
		for i, req := range requests {
			if req.NetNS == inode && req.Kind != kindOwner && req.Kind != kindNetNS {
				answers[i] = r.reader.Read(req, ns)
			}
		}
		return nil
	}
	var err error
	switch {
	case known:
		err = space.Do(read)
	case inode == 0:
		err = read()
	default:
		err = errGone
	}
	if err != nil {
		r.lacks.add("settings and states", err.Error(), "", namespaceLabel(ns.Name, inode))
	}
	for i, req := range requests {
		switch {
		case req.NetNS != inode || answers[i] != nil:
		case req.Kind == kindNetNS && (known || inode == 0):
			answers[i] = []record.Fact{spaceFact(ns, space)}
		case err != nil:
			answers[i] = []record.Fact{missing(req, ns, err.Error())}
		}
	}
}

// spaceFact says how a person gets into a namespace.
func spaceFact(ns record.NetNS, s netns.Namespace) record.Fact {
	f := record.Fact{
		Kind: kindNetNS, Name: kindNetNS, NetNS: ns, Value: s.Name,
		Source: "/proc/PID/ns/net", Command: "lsns -t net",
	}
	f.Fields = map[string]string{"name": s.Name}
	if !strings.Contains(s.Path, "/self/") { // which leads elsewhere for others
		f.Fields["path"] = s.Path
	}
	if s.PID != 0 {
		f.Fields["pid"] = strconv.Itoa(s.PID)
	}
	return f
}

// joinFacts puts the answers into one list. What belongs to the whole host is
// there once, whatever namespaces it was asked for in.
func joinFacts(requests []record.FactRequest, answers [][]record.Fact) []record.Fact {
	var out []record.Fact
	asked := map[record.FactRequest]bool{}
	for i, req := range requests {
		whole := req
		whole.NetNS = 0
		hostWide := false
		for _, f := range answers[i] {
			if f.NetNS.Inode == 0 {
				if asked[whole] {
					continue
				}
				hostWide = true
			}
			out = append(out, f)
		}
		if hostWide {
			asked[whole] = true
		}
	}
	return out
}
