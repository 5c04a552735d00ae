package lab

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/whydrop/whydrop/record"
)

// Expectation is what an observation must say about every drop that a
// scenario provokes.
type Expectation struct {
	// Cause is the id of the cause in the knowledge base.
	Cause     string           `yaml:"cause"`
	Class     record.Class     `yaml:"class"`
	Station   record.Station   `yaml:"station"`
	Direction record.Direction `yaml:"direction"`
	// Reasons are the names that kernels give to the reason. Empty where no
	// kernel has one.
	Reasons []string `yaml:"reasons"`
	// Symbols are the functions in which kernels drop the packet.
	Symbols []string `yaml:"symbols"`
	// Events is EventsNone where the kernel raises no drop event, and
	// EventsSome, or empty, where it raises one for each packet lost.
	Events string `yaml:"events"`
	// Forbidden are ids of causes that look alike and must not be found.
	Forbidden []string `yaml:"forbidden"`
	// Contributors are ids of what makes the loss worse and must be attached to
	// the finding.
	Contributors []string `yaml:"contributors"`
	// Remedy says how the loss is cured: RemedyCommand, RemedyRepair or
	// RemedyNone. RemedyWhy says why there is none, or why no command cures it.
	Remedy    string `yaml:"remedy"`
	RemedyWhy string `yaml:"remedy_why"`
	// Steps say how the loss comes about, a sentence each, for somebody who
	// sees it for the first time. The scenario's title is said before.
	Steps []string `yaml:"steps"`
	// Least is the fewest packets that tell this cause from what looks like it;
	// 0 is one.
	Least int `yaml:"least"`
	// MachineOnly is why the scenario may only run in a machine that is thrown
	// away: it changes a setting of the whole host, or the host here has not
	// what it needs. Empty: it may run on any host.
	MachineOnly string `yaml:"machine_only"`
	// NotOn are the kernels, as "5.10", on which the scenario cannot work, and
	// Why is the reason.
	NotOn []string `yaml:"not_on"`
	Why   string   `yaml:"why"`
}

// Values of Expectation.Events.
const (
	EventsNone = "none"
	EventsSome = "some"
)

// Values of Expectation.Remedy.
const (
	// RemedyCommand: the first complete command of the finding's remedies is
	// run as it is printed, and at least 99 % of the loss is gone.
	RemedyCommand = "command"
	// RemedyRepair: no setting cures it. The scenario does itself what the
	// remedy tells a person to do.
	RemedyRepair = "repair"
	// RemedyNone: there is nothing to do or to check, for the reason given.
	RemedyNone = "none"
)

//go:embed expected/*.yaml
var expectedFS embed.FS

// Expected returns what is expected of the scenario with that name.
func Expected(name string) (Expectation, error) {
	text, err := expectedFS.ReadFile("expected/" + name + ".yaml")
	if err != nil {
		return Expectation{}, fmt.Errorf("expectation of scenario %q: %w", name, err)
	}
	e, err := parseExpectation(text)
	if err != nil {
		return Expectation{}, fmt.Errorf("expectation of scenario %q: %w", name, err)
	}
	return e, nil
}

func parseExpectation(text []byte) (Expectation, error) {
	var e Expectation
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&e); err != nil {
		return Expectation{}, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Expectation{}, errors.New("more than one YAML document")
	}
	return e, e.check()
}

func (e Expectation) check() error {
	classes := []record.Class{
		record.ClassFault, record.ClassCapacity, record.ClassPolicy,
		record.ClassExpected, record.ClassBenign,
	}
	directions := []record.Direction{record.DirectionRX, record.DirectionTX, record.DirectionForward}
	switch {
	case e.Cause == "":
		return errors.New("no cause")
	case !slices.Contains(classes, e.Class):
		return fmt.Errorf("class %q: there is none", e.Class)
	case e.Station == record.StationUnknown || !slices.Contains(record.Stations(), e.Station):
		return fmt.Errorf("station %q: there is none", e.Station)
	case !slices.Contains(directions, e.Direction):
		return fmt.Errorf("direction %q: there is none", e.Direction)
	case e.Events != "" && e.Events != EventsNone && e.Events != EventsSome:
		return fmt.Errorf("events %q: want %s or %s", e.Events, EventsNone, EventsSome)
	case e.Silent() && len(e.Symbols)+len(e.Reasons) > 0:
		return errors.New("reasons or symbols of events that there are none of")
	case !e.Silent() && len(e.Symbols) == 0:
		return errors.New("no symbols")
	case slices.Contains(e.Symbols, "") || slices.Contains(e.Reasons, ""):
		return errors.New("empty symbol or reason")
	case slices.Contains(e.Forbidden, "") || slices.Contains(e.Forbidden, e.Cause):
		return errors.New("forbidden: an empty id, or the cause itself")
	case e.Remedy != RemedyCommand && e.Remedy != RemedyRepair && e.Remedy != RemedyNone:
		return fmt.Errorf("remedy %q: want %s, %s or %s", e.Remedy, RemedyCommand, RemedyRepair, RemedyNone)
	case e.Remedy == RemedyNone && e.RemedyWhy == "":
		return errors.New("remedy none: remedy_why must say why")
	case e.Least < 0:
		return fmt.Errorf("least %d: below 0", e.Least)
	case slices.Contains(e.Contributors, ""):
		return errors.New("contributors: an empty id")
	case slices.Contains(e.Steps, ""):
		return errors.New("steps: an empty one")
	case (len(e.NotOn) == 0) != (e.Why == ""):
		return errors.New("not_on and why go together")
	}
	for _, k := range e.NotOn {
		if !release.MatchString(k) {
			return fmt.Errorf("not_on %q: want a kernel such as 5.10", k)
		}
	}
	return nil
}

var release = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)

// Silent says that no drop event is to be expected.
func (e Expectation) Silent() bool { return e.Events == EventsNone }

// WorksOn says whether the scenario can work on a kernel, named by its release
// as uname(2) gives it. Where it cannot, Why says why.
func (e Expectation) WorksOn(kernel string) bool {
	return !slices.ContainsFunc(e.NotOn, func(k string) bool {
		rest, ok := strings.CutPrefix(kernel, k)
		return ok && (rest == "" || rest[0] < '0' || rest[0] > '9')
	})
}

// Accepts says whether a drop counted under k, on whatever kernel, is one that
// is expected. A kernel without reasons gives none.
func (e Expectation) Accepts(k record.Key) bool {
	if k.Reason.Name != "" && !slices.Contains(e.Reasons, k.Reason.Name) {
		return false
	}
	// The compiler's clones of a function have a suffix: .isra.0, .part.0.
	symbol, _, _ := strings.Cut(k.Location.Symbol, ".")
	return slices.Contains(e.Symbols, symbol)
}
