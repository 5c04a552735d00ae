package skbdrop

import "fmt"

// Trap is the words of a devlink trap, by which hardware tells a drop. They are
// those of the driver, cut after 63 bytes.
type Trap struct{ Name, Group string }

// Hardware says whether drops by hardware are counted, and why not where the
// kernel could have told them: nil then if they were not asked for.
func (p *Probe) Hardware() (bool, error) { return p.trap != nil, p.refused }

// Trap returns the words of a key whose direction is Hardware. The program has written them
// before it counted the first drop of that key.
func (p *Probe) Trap(k Key) (Trap, error) {
	if t, ok := p.traps[k.Location]; ok {
		return t, nil
	}
	var v skbdropTrap
	if err := p.coll.Maps[skbdropMapTraps].Lookup(k.Location, &v); err != nil {
		return Trap{}, fmt.Errorf("read the name of a devlink trap: %w", err)
	}
	t := Trap{string(cString(v.Name[:])), string(cString(v.Group[:]))}
	p.traps[k.Location] = t
	return t, nil
}
