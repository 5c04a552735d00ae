package kernel

import (
	"fmt"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// page is the least that KASLR moves a kernel by.
const page = 4096

// maxNamed bounds the functions that are compared as the kernel names them.
const maxNamed = 256

// placement is how far a kernel runs from where its file of symbols says it
// lies, and how that is known.
type placement struct {
	// which is the kernel in words.
	which string
	// shift is the kernel's addresses minus the file's, modulo 2^64.
	shift uint64
	// by says how shift is known; empty where it is not.
	by string
	// proof says what shows that the file is of this kernel.
	proof []string
	// hidden says why the kernel's addresses are not known.
	hidden error
	// asked are the functions that the kernel named; agreed of them lie where
	// the file has them, denied elsewhere.
	asked          map[string]bool
	agreed, denied int
	refused        error
}

// begin places a file by landmarks of the kernel. The error wraps
// ErrOtherKernel.
func (p *placement) begin(l landmarks, f *symbolFile) error {
	p.which, p.hidden = l.which, l.hidden
	same := false
	if l.buildID != "" && f.buildID != "" {
		if same = l.buildID == f.buildID; !same {
			return fmt.Errorf("%w: its build id is %s, that of the %s kernel %s", ErrOtherKernel, f.buildID, l.which, l.buildID)
		}
		p.proof = append(p.proof, "the build id")
	}
	var reach uint64
	for _, g := range l.groups {
		shift, found, err := g.compare(f.marks)
		reach = max(reach, g.reach())
		if err != nil {
			return err
		}
		switch {
		case g.physical && found < 2:
			continue // a map that was made of kallsyms has no data
		case !g.physical && !same && (found < 2 || 2*found < len(g.at)):
			return fmt.Errorf("%w: it has %d of %d %s of %s", ErrOtherKernel, found, len(g.at), g.what, g.where)
		}
		p.proof = append(p.proof, fmt.Sprintf("%d %s of %s", found, g.what, g.where))
		if !g.physical {
			p.shift, p.by = shift, g.where
		}
	}
	if !same && reach < farReach && len(p.proof) > 0 {
		p.proof = append(p.proof, "nothing behind the start of its text: another build may agree as far")
	}
	if p.by == "" && l.still != nil {
		p.by = l.still()
	}
	if p.by != "" && p.shift%page != 0 {
		return fmt.Errorf("%w: it would have been moved by 0x%x, which is not a whole number of pages", ErrOtherKernel, p.shift)
	}
	return nil
}

// compare finds how far the group's places are from where the file has them,
// and how many of them it has.
func (g group) compare(marks map[string]*mark) (shift uint64, found int, err error) {
	var first record.Anchor
	for _, a := range g.at {
		m := marks[a.Symbol]
		if m == nil || m.times != 1 || g.times(a.Symbol) != 1 {
			continue // a name that two static functions have tells nothing
		}
		d := uint64(a.Address) - m.addr
		switch {
		case found == 0:
			first, shift = a, d
		case d != shift:
			return 0, 0, fmt.Errorf("%w: %s lies %s %s in it, and %s in %s", ErrOtherKernel, a.Symbol,
				apart(m.addr, marks[first.Symbol].addr), first.Symbol,
				apart(uint64(a.Address), uint64(first.Address)), g.where)
		}
		found++
	}
	return shift, found, nil
}

// farReach is how far known places must lie apart, in bytes, to say anything of
// most of a kernel: what its text begins with seldom changes.
const farReach = 1 << 20

// reach is how far the places of a group lie apart.
func (g group) reach() uint64 {
	if len(g.at) == 0 {
		return 0
	}
	first, last := g.at[0].Address, g.at[0].Address
	for _, a := range g.at {
		first, last = min(first, a.Address), max(last, a.Address)
	}
	return uint64(last - first)
}

func (g group) times(name string) (n int) {
	for _, a := range g.at {
		if a.Symbol == name {
			n++
		}
	}
	return n
}

// apart says in words how far a lies from b.
func apart(a, b uint64) string {
	if a < b {
		return fmt.Sprintf("0x%x before", b-a)
	}
	return fmt.Sprintf("0x%x behind", a-b)
}

// learn compares a name that the kernel gave an address with the file.
func (p *placement) learn(addr uint64, s symbolic, table *Symbols) error {
	if p.asked[s.name] || len(p.asked) >= maxNamed {
		return nil
	}
	if p.asked == nil {
		p.asked = map[string]bool{}
	}
	p.asked[s.name] = true
	start, ok := table.only(s.name)
	if !ok {
		return nil
	}
	shift := addr - s.offset - start
	switch {
	case shift%page != 0:
		return p.deny(fmt.Errorf("%w: it would have been moved by 0x%x, says %s, which is not a whole number of pages",
			ErrOtherKernel, shift, s.name))
	case p.by == "":
		p.shift, p.by = shift, "the drop monitor's alert of "+s.name
	case shift != p.shift:
		return p.deny(fmt.Errorf("%w: it was moved by 0x%x, says %s, and by 0x%x, says %s",
			ErrOtherKernel, p.shift, p.by, shift, s.name))
	}
	if p.agreed++; p.agreed == 2 && len(p.proof) == 0 {
		p.proof = append(p.proof, "alerts of the drop monitor")
	}
	return nil
}

// deny takes a contradiction. A file for which something else speaks is refused
// at the second: the names of static functions need not be unique.
func (p *placement) deny(err error) error {
	if p.denied++; p.denied < 2 && len(p.proof) > 0 {
		return nil
	}
	p.refused = err
	return err
}

// ready is nil when shift is known, and that the file is of this kernel.
func (p *placement) ready() error {
	switch {
	case p.refused != nil:
		return p.refused
	case p.by == "":
		return fmt.Errorf("%w: %w", ErrNotPlaced, p.hidden)
	case len(p.proof) == 0:
		return fmt.Errorf("%w: nothing shows that it is of the %s kernel: %w", ErrNotPlaced, p.which, p.hidden)
	}
	return nil
}

// String says how the file's addresses and the kernel's hang together.
func (p *placement) String() string {
	if err := p.ready(); err != nil {
		return err.Error()
	}
	where := "at the file's addresses"
	switch {
	case int64(p.shift) > 0:
		where = fmt.Sprintf("0x%x above the file's addresses", p.shift)
	case p.shift != 0:
		where = fmt.Sprintf("0x%x below the file's addresses", -p.shift)
	}
	return fmt.Sprintf("%s (%s), checked by %s", where, p.by, strings.Join(p.proof, " and "))
}

// only returns where the one function of a name starts.
func (s *Symbols) only(name string) (start uint64, ok bool) {
	for _, sym := range s.symbols {
		if int(sym.length) == len(name) && s.name(sym) == name {
			if ok {
				return 0, false
			}
			start, ok = sym.addr, true
		}
	}
	return start, ok
}
