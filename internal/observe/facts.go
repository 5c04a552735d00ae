package observe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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

// FactsTime is how long reading facts may take, all rounds of a diagnosis
// together. Reading them takes milliseconds on most hosts and a second on one
// with very many sockets or rules; somebody waits for the verdict, and one
// without some facts is better than none. A slow machine gets no more: who
// waits there is as patient.
const FactsTime = 5 * time.Second

// noTimeLeft is why a fact is missing that was not reached.
const noTimeLeft = "no time left"

// Facts reads what is asked for, entering each network namespace once. Each
// request is answered, in the order of the requests, with at least one fact:
// its Missing says why something could not be read. Facts for namespace 0 are
// read in that of the host and have the zero NetNS. The second result says
// which namespaces could not be looked into.
//
// It returns when ctx is done, and after FactsTime at the latest, even where
// the kernel has not answered yet: what was not read until then is missing.
func Facts(ctx context.Context, requests []record.FactRequest) ([]record.Fact, []record.Blind) {
	if len(requests) == 0 {
		return nil, nil
	}
	return inTime(ctx, requests, readFacts)
}

// inTime answers requests with what read gives before ctx or FactsTime is
// over. A read that is in the kernel then is left to itself, and its answer
// is not looked at any more.
func inTime(ctx context.Context, requests []record.FactRequest, read func(context.Context, *answers)) ([]record.Fact, []record.Blind) {
	ctx, cancel := context.WithTimeout(ctx, FactsTime)
	defer cancel()
	a := &answers{requests: requests, list: make([][]record.Fact, len(requests))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		read(ctx, a)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return a.all()
}

func readFacts(ctx context.Context, a *answers) {
	names, err := netns.NewNames()
	if err != nil {
		for i, f := range failed(a.requests, err) {
			a.set(i, f)
		}
		return
	}
	r := newFactReader(names, a)
	if ctx.Err() == nil {
		r.owners()
	}
	for _, inode := range spacesOf(a.requests) {
		if ctx.Err() != nil {
			return
		}
		r.answer(ctx, inode)
	}
}

// answers collects the facts that answer requests. It may be read while more
// of them come.
type answers struct {
	requests []record.FactRequest

	mu    sync.Mutex
	list  [][]record.Fact // nil where a request is not answered yet
	lacks lacks
}

func (a *answers) set(i int, facts ...record.Fact) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list[i] = facts
}

func (a *answers) has(i int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.list[i] != nil
}

func (a *answers) lack(what, why, label string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lacks.add(what, why, "", label)
}

// all is what there is by now.
func (a *answers) all() ([]record.Fact, []record.Blind) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := slices.Clone(a.list)
	for i, req := range a.requests {
		if list[i] == nil {
			list[i] = []record.Fact{missing(req, record.NetNS{Inode: req.NetNS}, noTimeLeft)}
		}
	}
	return joinFacts(a.requests, list), a.lacks.blind()
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
	*answers
}

func newFactReader(names *netns.Names, a *answers) *factReader {
	r := &factReader{spaces: map[uint32]netns.Namespace{}, answers: a}
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
func (r *factReader) owners() {
	var inodes []uint64
	var which []int
	for i, req := range r.requests {
		if req.Kind != kindOwner {
			continue
		}
		ns := record.NetNS{Inode: req.NetNS, Name: r.spaces[req.NetNS].Name}
		if err := CheckFact(req.Kind, req.Arg); err != nil {
			r.set(i, missing(req, ns, err.Error()))
			continue
		}
		inode, _ := strconv.ParseUint(req.Arg, 10, 64) // checked above
		inodes, which = append(inodes, inode), append(which, i)
	}
	if len(inodes) == 0 {
		return
	}
	for j, f := range owner.Facts(inodes, record.NetNS{}) {
		req := r.requests[which[j]]
		f.NetNS = record.NetNS{Inode: req.NetNS, Name: r.spaces[req.NetNS].Name}
		f.Request = req.Arg
		r.set(which[j], f)
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

// answer reads all that is asked of one namespace, until ctx is done.
func (r *factReader) answer(ctx context.Context, inode uint32) {
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
		for i, req := range r.requests {
			if ctx.Err() != nil {
				return nil
			}
			if req.NetNS == inode && req.Kind != kindOwner && req.Kind != kindNetNS {
				r.set(i, r.reader.Read(req, ns)...)
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
		r.lack("settings and states", err.Error(), namespaceLabel(ns.Name, inode))
	}
	for i, req := range r.requests {
		switch {
		case req.NetNS != inode || r.has(i):
		case req.Kind == kindNetNS && (known || inode == 0):
			r.set(i, spaceFact(ns, space))
		case err != nil:
			r.set(i, missing(req, ns, err.Error()))
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
