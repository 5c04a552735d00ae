package lab

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
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
}

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
	case len(e.Symbols) == 0:
		return errors.New("no symbols")
	case slices.Contains(e.Symbols, "") || slices.Contains(e.Reasons, ""):
		return errors.New("empty symbol or reason")
	}
	return nil
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
