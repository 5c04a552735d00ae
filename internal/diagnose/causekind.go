package diagnose

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The kinds of causes.
const (
	// kindLoss is a loss on this host: it makes findings.
	kindLoss = "loss"
	// kindContributor makes a loss worse and is none itself: it is attached to
	// findings.
	kindContributor = "contributor"
	// kindConclusion is that a trouble is no loss on this host.
	kindConclusion = "conclusion"
)

// conclusionPrefix begins the ids of conclusions, and no others.
const conclusionPrefix = "h-"

// is says whether the cause is of a kind.
func (c *Cause) is(kind string) bool {
	return c.Kind == kind || c.Kind == "" && kind == kindLoss
}

// wholeHost says that the loss meets all traffic of the host.
func (c *Cause) wholeHost() bool { return c.Scope == scopeHost }

// checkKind holds the cause to what its kind must and must not have.
func (c *Cause) checkKind() error {
	switch {
	case !slices.Contains([]string{"", kindLoss, kindContributor, kindConclusion}, c.Kind):
		return fmt.Errorf("kind %q: want loss, contributor or conclusion", c.Kind)
	case c.Scope != "" && c.Scope != scopeHost:
		return fmt.Errorf("scope %q: want host", c.Scope)
	case strings.HasPrefix(c.ID, conclusionPrefix) != c.is(kindConclusion):
		return errors.New("conclusions, and only they, have ids that begin with h-")
	case (len(c.ContributesTo) > 0) != c.is(kindContributor):
		return errors.New("contributes_to: a contributor needs it, and no other has it")
	}
	if c.is(kindLoss) {
		switch {
		case c.DependsWhen != "" && len(c.DependsOn) == 0:
			return errors.New("depends_when without depends_on")
		case c.Holds != "" || c.Count != "" || c.When != "":
			return errors.New("holds, count and when are of contributors and conclusions")
		case len(c.Patterns) == 0 && c.Lost == "":
			return errors.New("neither drops nor lost: nothing could ever be this cause")
		}
		return nil
	}
	switch {
	case c.DependsWhen != "":
		return fmt.Errorf("depends_when is of a loss, not of a %s", c.Kind)
	case c.Holds == "":
		return errors.New("no holds: nothing says when it is true")
	case len(c.Patterns) > 0 || c.Lost != "":
		return fmt.Errorf("drops and lost are of a loss, not of a %s", c.Kind)
	case len(c.DependsOn) > 0:
		return fmt.Errorf("depends_on is of a loss, not of a %s", c.Kind)
	case len(c.Requests) > 0 && c.When == "":
		return errors.New("facts without when: a host where nothing is wrong would be asked for them")
	}
	return nil
}

// The functions that ask for facts, and those that ask about findings.
var (
	ofFacts    = []string{"fact", "field", "facts", "sysctl", "sysctls"}
	ofFindings = []string{"found", "lost"}
)

// checkFunctions refuses functions where what they ask for is never known: facts
// before they are read, and findings before they are there.
func (c *Cause) checkFunctions() error {
	refused := func(what string, e *expression, names []string) error {
		if e == nil {
			return nil
		}
		for _, f := range e.names() {
			if slices.Contains(names, f) {
				return fmt.Errorf("%s: %s is not known there", what, f)
			}
		}
		return nil
	}
	err := refused("when", c.when, slices.Concat(ofFacts, ofFindings))
	for _, t := range c.requests {
		for _, p := range t.parts {
			err = cmpErr(err, refused("facts", p.value, ofFindings))
		}
	}
	if !c.is(kindLoss) {
		return err
	}
	for _, e := range c.expressions() {
		if e != c.dependsWhen {
			err = cmpErr(err, refused(e.text, e, ofFindings))
		}
	}
	return err
}

// checkLinks looks at the ids that causes name: none may name itself, or depend
// on itself by way of others. Ids of causes that are not there are the linter's.
func (k *Knowledge) checkLinks() error {
	for _, c := range k.causes {
		file := "causes/" + c.ID + "/cause.yaml"
		for _, d := range slices.Concat(c.DependsOn, c.ContributesTo) {
			if d == c.ID || !idShape.MatchString(d) {
				return fmt.Errorf("%s: %q is no other cause's id", file, d)
			}
		}
		if slices.Contains(k.ancestors(c), c.ID) {
			return fmt.Errorf("%s: depends_on leads in a circle", file)
		}
	}
	return nil
}

// MissingLinks are the ids that causes depend on or contribute to and that no
// cause has, as "ID: ID", sorted.
func (k *Knowledge) MissingLinks() []string {
	var out []string
	for _, c := range k.causes {
		for _, d := range slices.Concat(c.DependsOn, c.ContributesTo) {
			if up := k.Cause(d); up == nil || !up.is(kindLoss) {
				out = append(out, c.ID+": "+d)
			}
		}
	}
	slices.Sort(out)
	return out
}
