package counter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

// Sources of devlink.
const (
	devlinkSource       = "devlink GET"
	devlinkPortSource   = "devlink PORT_GET"
	devlinkTrapSource   = "devlink TRAP_GET"
	devlinkGroupSource  = "devlink TRAP_GROUP_GET"
	devlinkPolicySource = "devlink TRAP_POLICER_GET"
	devlinkHealthSource = "devlink HEALTH_REPORTER_GET"
)

// devlinkPolicerID is DEVLINK_ATTR_TRAP_POLICER_ID (include/uapi/linux/devlink.h).
const devlinkPolicerID = 142

// readDevlink adds the counters of the devices behind devlink: packets that
// they trapped or dropped, and errors that their drivers reported. Ports have
// none of their own, but a driver may report errors of one.
func (s *Snapshot) readDevlink(f kernelnet.Family) {
	devices, err := genlDump(f, unix.DEVLINK_CMD_GET, nil)
	if err != nil {
		s.missUnlessUnsupported(devlinkSource, err)
		return
	}
	if len(devices) == 0 {
		return
	}
	ports := map[string]record.Device{}
	answers, err := genlDump(f, unix.DEVLINK_CMD_PORT_GET, nil)
	if err != nil {
		s.missUnlessUnsupported(devlinkPortSource, err)
	}
	var errs []error
	for _, m := range answers {
		h, err := parseDevlink(m)
		errs = append(errs, err)
		if h.netdev.Index != 0 {
			ports[h.port()] = h.netdev
		}
	}
	if err := parseError(devlinkPortSource, errs...); err != nil {
		s.miss(devlinkPortSource, err)
	}
	for _, q := range devlinkQuestions() {
		messages, err := genlDump(f, q.command, nil)
		if err != nil {
			s.missUnlessUnsupported(q.source, err)
			continue
		}
		s.addDevlink(q, messages, ports)
	}
}

// devlinkQuestion is a request whose answers have counters.
type devlinkQuestion struct {
	source  string
	command uint8
	// show shows all of them to a person.
	show  string
	parse func(devlinkAnswer) []Value
}

func devlinkQuestions() []devlinkQuestion {
	return []devlinkQuestion{
		{devlinkTrapSource, unix.DEVLINK_CMD_TRAP_GET, "devlink -s trap", devlinkAnswer.trapValues},
		{devlinkGroupSource, unix.DEVLINK_CMD_TRAP_GROUP_GET, "devlink -s trap group", devlinkAnswer.groupValues},
		{devlinkPolicySource, unix.DEVLINK_CMD_TRAP_POLICER_GET, "devlink -s trap policer", devlinkAnswer.policerValues},
		{devlinkHealthSource, unix.DEVLINK_CMD_HEALTH_REPORTER_GET, "devlink health", devlinkAnswer.healthValues},
	}
}

// addDevlink adds the counters of the answers, each of its object, and their
// sums over all devices.
func (s *Snapshot) addDevlink(q devlinkQuestion, messages [][]byte, ports map[string]record.Device) {
	var wholes wholes
	s.addParsed(q.source, messages, func(m []byte) ([]Value, error) {
		a, err := parseDevlink(m)
		if err != nil {
			return nil, err
		}
		values := q.parse(a)
		for i := range values {
			v := &values[i]
			v.Source = q.source
			whole := *v
			whole.Command = q.show
			wholes.add(whole)
			if a.hasPort {
				v.Device = ports[a.port()]
			}
		}
		return values, nil
	})
	s.Values = append(s.Values, wholes.values()...)
}

// devlinkAnswer is what is used of an answer of devlink.
type devlinkAnswer struct {
	bus, dev string
	portNo   uint64
	hasPort  bool
	// netdev is a port's device, if it is in this namespace.
	netdev      record.Device
	trap, group string
	// kind is an enum devlink_trap_type.
	kind     uint8
	policer  uint64
	reporter string
	// stats are those that the answer has, by their names.
	stats []Value
	// errors and recovered are those of a reporter; the first is known where
	// there is a reporter.
	errors, recovered    uint64
	hasErrs, hasRecovers bool
}

// handle names a device as devlink does.
func (a devlinkAnswer) handle() string { return a.bus + "/" + a.dev }

// word is the handle as a word of a shell.
func (a devlinkAnswer) word() string { return quote(a.bus) + "/" + quote(a.dev) }

func (a devlinkAnswer) port() string { return fmt.Sprintf("%s/%d", a.handle(), a.portNo) }

// parseDevlink reads the attributes of an answer.
func parseDevlink(m []byte) (devlinkAnswer, error) {
	var a devlinkAnswer
	var errs []error
	errs = append(errs, kernelnet.Attributes(m, 0, func(kind int, content []byte) {
		switch kind {
		case unix.DEVLINK_ATTR_BUS_NAME:
			a.bus = unix.ByteSliceToString(content)
		case unix.DEVLINK_ATTR_DEV_NAME:
			a.dev = unix.ByteSliceToString(content)
		case unix.DEVLINK_ATTR_PORT_INDEX:
			a.portNo, a.hasPort = u32(content, 0)
		case unix.DEVLINK_ATTR_PORT_NETDEV_IFINDEX:
			v, _ := u32(content, 0)
			a.netdev.Index = uint32(v)
		case unix.DEVLINK_ATTR_PORT_NETDEV_NAME:
			a.netdev.Name = unix.ByteSliceToString(content)
		case unix.DEVLINK_ATTR_TRAP_NAME:
			a.trap = unix.ByteSliceToString(content)
		case unix.DEVLINK_ATTR_TRAP_GROUP_NAME:
			a.group = unix.ByteSliceToString(content)
		case unix.DEVLINK_ATTR_TRAP_TYPE:
			if len(content) > 0 {
				a.kind = content[0]
			}
		case devlinkPolicerID:
			a.policer, _ = u32(content, 0)
		case unix.DEVLINK_ATTR_STATS:
			errs = append(errs, a.parseStats(content))
		case unix.DEVLINK_ATTR_HEALTH_REPORTER:
			errs = append(errs, a.parseReporter(content))
		}
	}))
	if a.bus == "" || a.dev == "" {
		errs = append(errs, errors.New("the answer names no device"))
	}
	return a, errors.Join(errs...)
}

func (a *devlinkAnswer) parseStats(b []byte) error {
	names := []string{
		unix.DEVLINK_ATTR_STATS_RX_PACKETS: "rx_packets",
		unix.DEVLINK_ATTR_STATS_RX_BYTES:   "rx_bytes",
		unix.DEVLINK_ATTR_STATS_RX_DROPPED: "rx_dropped",
	}
	return kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		// They begin at 0, so padding has the number 178, DEVLINK_ATTR_PAD.
		if v, ok := u64(content, 0); ok {
			a.stats = append(a.stats, Value{Name: stringAt(names, kind, "stat_"), Value: v})
		}
	})
}

func (a *devlinkAnswer) parseReporter(b []byte) error {
	return kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case unix.DEVLINK_ATTR_HEALTH_REPORTER_NAME:
			a.reporter = unix.ByteSliceToString(content)
		case unix.DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT:
			a.errors, a.hasErrs = u64(content, 0)
		case unix.DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT:
			a.recovered, a.hasRecovers = u64(content, 0)
		}
	})
}

// named gives the statistics a table, an object and a command.
func (a devlinkAnswer) named(table, object, command string) []Value {
	values := make([]Value, len(a.stats))
	for i, v := range a.stats {
		v.Name, v.Object, v.Command = table+"."+v.Name, object, command
		values[i] = v
	}
	return values
}

// trapValues are the counters of a trap. What it means that a packet was
// trapped depends on the trap's type, so that is part of the table's name.
func (a devlinkAnswer) trapValues() []Value {
	tables := []string{"devlink-trap-drop", "devlink-trap-exception", "devlink-trap-control"}
	table := "devlink-trap-" + fmt.Sprint(a.kind)
	if int(a.kind) < len(tables) {
		table = tables[a.kind]
	}
	return a.named(table, "trap "+a.handle()+" "+a.trap, "devlink -s trap show "+a.word()+" trap "+quote(a.trap))
}

func (a devlinkAnswer) groupValues() []Value {
	return a.named("devlink-trap-group", "trap-group "+a.handle()+" "+a.group, "devlink -s trap group show "+a.word()+" group "+quote(a.group))
}

func (a devlinkAnswer) policerValues() []Value {
	return a.named("devlink-trap-policer", fmt.Sprintf("trap-policer %s %d", a.handle(), a.policer),
		fmt.Sprintf("devlink -s trap policer show %s policer %d", a.word(), a.policer))
}

func (a devlinkAnswer) healthValues() []Value {
	of, word := a.handle(), a.word()
	if a.hasPort {
		of, word = a.port(), fmt.Sprintf("%s/%d", word, a.portNo)
	}
	object := "reporter " + of + " " + a.reporter
	command := "devlink health show " + word + " reporter " + quote(a.reporter)
	var values []Value
	if a.hasErrs {
		values = append(values, Value{Name: "devlink-health.err_count", Object: object, Value: a.errors, Command: command})
	}
	if a.hasRecovers {
		values = append(values, Value{Name: "devlink-health.recover_count", Object: object, Value: a.recovered, Command: command})
	}
	return values
}
