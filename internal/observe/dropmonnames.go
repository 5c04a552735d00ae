package observe

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// dropmonNames turns the monitor's words into those of a record.
type dropmonNames struct {
	symbols symbolNames // nil where they cannot be read
	hidden  error       // why
	// reasons lists the kernel's, and is called for the first reason that is seen.
	reasons func() []record.Reason
	byName  map[string]record.Reason
	headers packet.Headers
}

// packet is the key of drops that packet alerts, or summaries of hardware, told.
func (n *dropmonNames) packet(k alertKey) record.Key {
	key := record.Key{
		Device:    record.Device{Index: k.index, Name: k.device},
		EtherType: k.etherType, IPProto: k.ipProto, Direction: record.DirectionUnknown,
	}
	if k.origin == dropmon.OriginHardware {
		key.Reason, key.Direction = trapReason(k.reason, k.group), record.DirectionRX
		return key
	}
	key.Reason, key.Location = n.reason(k.reason), n.location(k.pc, k.symbol)
	return key
}

// reason finds the whole of a reason by its name. The number and the subsystem
// are known where only one has that name.
func (n *dropmonNames) reason(name string) record.Reason {
	if name == "" {
		return record.Reason{}
	}
	if n.byName == nil {
		n.byName = map[string]record.Reason{}
		for _, r := range n.reasons() {
			if _, twice := n.byName[r.Name]; twice {
				r = record.Reason{Name: r.Name}
			}
			n.byName[r.Name] = r
		}
	}
	if r, ok := n.byName[name]; ok {
		return r
	}
	return record.Reason{Name: name}
}

// location names a place, by the kernel's own text where symbols are hidden or
// do not tell.
func (n *dropmonNames) location(pc uint64, text string) record.Location {
	told := dropmon.Location(pc, text)
	if n.symbols == nil {
		return told
	}
	if l, ok := n.symbols.(*symbols); ok && text != "" && l.learn(pc, text) {
		n.hidden = nil
	}
	if at := n.symbols.Resolve(pc); at.Symbol != "" || told.Symbol == "" {
		return at
	}
	return told
}

// drop makes a record of a packet, which shares no memory with it but the bytes.
func (n *dropmonNames) drop(s *alertSample, offset time.Duration) record.Drop {
	d := record.Drop{
		Time: s.Time, Key: n.packet(s.key), Length: s.OriginalLength, Headers: s.Payload,
	}
	if mono := s.Time.Add(-offset).UnixNano(); mono > 0 {
		d.KernelTime = uint64(mono)
	}
	if s.ok && n.headers.Decode(s.Payload, s.start, s.Protocol) == nil {
		d.Packet = n.headers.Record()
	}
	return d
}

// loadReasons are the names of this kernel's reasons, as far as it tells them.
func loadReasons(host kernel.Host) *kernel.Reasons {
	types, err := host.LoadBTF()
	if err != nil {
		types = nil
	}
	return host.LoadReasons(types)
}

// dropmonMatch makes a filter ready for what the drop monitor tells: no device
// and no namespace, and reasons by their names.
func dropmonMatch(s *site) (matcher, error) {
	f := s.opt.Filter
	var m matcher
	for _, name := range f.Interfaces {
		if name == "" {
			return m, &FilterError{errors.New("interface name is empty")}
		}
	}
	var err error
	if m.netns, err = f.spaces(s.names); err != nil {
		return m, err
	}
	m.placeless = true
	if len(f.Reasons) == 0 {
		return m, nil
	}
	known := loadReasons(s.host)
	for _, name := range f.Reasons {
		found, err := known.Parse(name)
		var unknown *kernel.UnknownReasonError
		trap, isTrap := askedTrap(name, err)
		switch {
		case isTrap:
			m.traps = add(m.traps, trap)
		case err == nil && found[0].Name != "":
			m.reasonNames = add(m.reasonNames, found[0].Name)
		case errors.As(err, &unknown) && unknown.Why != nil:
			// No list says what the kernel, or hardware, has: as it is, then.
			m.reasonNames = add(m.reasonNames, name)
			m.reasonNames = add(m.reasonNames, strings.TrimPrefix(strings.ToUpper(name), "SKB_DROP_REASON_"))
		case err == nil:
			return m, &FilterError{fmt.Errorf("reason %q: this kernel has no drop reasons", name)}
		default:
			return m, &FilterError{err}
		}
	}
	return m, nil
}
