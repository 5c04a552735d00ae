package diagnose

import (
	"maps"
	"regexp"
	"slices"
)

// What the host calls its devices, namespaces and processes is not to be
// trusted in a command that somebody will paste as root: a device may be named
// x;reboot;# by whoever has a user namespace.

// harmless is text that no shell takes for more than words.
var harmless = regexp.MustCompile(`^[A-Za-z0-9._@:/+%\[\], =-]*$`)

// forCommands is s with everything left out that a shell could take for a
// command: what needs it is not known then.
func (s *scope) forCommands() *scope {
	copied := *s
	s = &copied
	s.define(s.lets) // with what is harmless
	for _, p := range []*string{&s.Device, &s.NetNS, &s.Owner, &s.Src, &s.Dst, &s.DstMAC} {
		if !harmless.MatchString(*p) {
			*p = ""
		}
	}
	fact, field, facts := s.Fact, s.Field, s.Facts
	s.Fact = func(request string) (any, error) { return checked(fact(request)) }
	s.Field = func(request, name string) (any, error) { return checked(field(request, name)) }
	s.Facts = func(request string) ([]map[string]any, error) {
		found, err := facts(request)
		out := slices.Clone(found)
		for i, o := range found {
			for k, v := range o {
				if _, err := checked(v, nil); err != nil {
					out[i] = maps.Clone(out[i])
					delete(out[i], k)
				}
			}
		}
		return out, err
	}
	return s
}

// checked is v, unless it is text that may not stand in a command.
func checked(v any, err error) (any, error) {
	if s, ok := v.(string); err == nil && ok && !harmless.MatchString(s) {
		return nil, unknownf("%q may not stand in a command", s)
	}
	return v, err
}

// bare are the names that a command needs a value of: without one the command
// would say something else.
var bare = []string{"device", "ifindex", "netns", "proto", "src", "dst", "sport", "dport", "dst_mac", "owner", "inode"}

// command is expand for a text that is to be run: a bare name that has no value
// makes it not known.
func (t *template) command(env any) (string, error) {
	for _, p := range t.parts {
		if p.value == nil || !slices.Contains(bare, p.value.text) {
			continue
		}
		v, err := p.value.run(env)
		if err != nil {
			return "", err
		}
		if text := format(v); text == "" || text == "0" {
			return "", unknownf("%s is not known", p.value.text)
		}
	}
	return t.expand(env)
}
