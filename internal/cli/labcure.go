package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/lab/cure"
	"github.com/whydrop/whydrop/record"
)

// labCure is what came of the remedy of a loss.
type labCure struct {
	// Kind is that of lab.Expectation.Remedy, and Why what it says to it.
	Kind string `json:"kind"`
	Why  string `json:"why,omitempty"`
	// Command is the first of the finding's remedies that can be run as it
	// stands and changes something.
	Command *labCommand `json:"command,omitempty"`
	// Sent and Lost are the packets that were sent again after it, and those of
	// them that the kernel's counter says were lost. Tried is false where
	// nothing was sent, for Command was refused.
	Tried bool   `json:"tried"`
	Sent  uint64 `json:"sent"`
	Lost  uint64 `json:"lost"`
	// Outcome is what whydrop says became of the finding, having watched again;
	// Found are the causes that it found then, and Again is how many packets of
	// those were lost by the same cause as before.
	Outcome record.Outcome `json:"outcome,omitempty"`
	Found   []string       `json:"found"`
	Again   uint64         `json:"again"`
	// Verify are the commands of the finding that show whether it helped, Undo
	// that which takes the remedy back.
	Verify []labCommand `json:"verify"`
	Undo   *labCommand  `json:"undo,omitempty"`
}

// labCommand is a command as it was printed, and what came of it.
type labCommand struct {
	Command string `json:"command"`
	// Refused is why it was not run.
	Refused string `json:"refused,omitempty"`
	Code    int    `json:"code"`
	Output  string `json:"output,omitempty"`
}

// looks is what the undo of a remedy says that only looks.
const looks = "not needed"

// stillLost is the part of the packets sent again that may be lost still.
const stillLost = 0.01

// labPatient is a loss that was provoked and found, and is to be cured.
type labPatient struct {
	setup   *lab.Setup
	want    lab.Expectation
	pid     int // of the process in the namespace
	options labOptions
	before  *record.Observation
	finding record.Finding
	k       *diagnose.Knowledge
}

// cure does what the finding's remedy says, and looks whether it helped.
func (p *labPatient) cure(ctx context.Context) (*labCure, error) {
	c := &labCure{Kind: p.want.Remedy, Why: p.want.RemedyWhy, Found: []string{}, Verify: []labCommand{}}
	var undo string
	switch p.want.Remedy {
	case lab.RemedyNone:
		return c, nil
	case lab.RemedyRepair:
		if err := p.setup.Repair(); err != nil {
			return c, err
		}
	case lab.RemedyCommand:
		r, err := completeRemedy(p.finding)
		if err != nil {
			return c, err
		}
		if c.Command, err = p.run(ctx, r.Command); err != nil || c.Command.Refused != "" || c.Command.Code != 0 {
			return c, err
		}
		undo = r.Undo
	}
	if err := p.prove(ctx, c); err != nil {
		return c, err
	}
	for _, command := range p.finding.Verify {
		v, err := p.look(ctx, command)
		if err != nil {
			return c, err
		}
		c.Verify = append(c.Verify, *v)
	}
	if undo == "" || cure.Complete(undo) != nil {
		return c, nil
	}
	var err error
	c.Undo, err = p.run(ctx, undo)
	return c, err
}

// completeRemedy is the first remedy whose command can be run as it stands and
// changes something.
func completeRemedy(f record.Finding) (record.Remedy, error) {
	var why []string
	for _, r := range f.Remedy {
		if r.Undo == looks {
			continue
		}
		err := cure.Complete(r.Command)
		if err == nil {
			return r, nil
		}
		why = append(why, fmt.Sprintf("%q: %v", r.Command, err))
	}
	if len(why) == 0 {
		why = append(why, "it has none that changes something")
	}
	return record.Remedy{}, &noRemedyError{f.Cause, strings.Join(why, "; ")}
}

// noRemedyError says that a finding has no remedy that can be run.
type noRemedyError struct{ cause, why string }

func (e *noRemedyError) Error() string {
	return fmt.Sprintf("no complete remedy of %s: %s", e.cause, e.why)
}

// run runs a command that changes something: only in the lab's own namespace,
// unless the whole machine may be changed.
func (p *labPatient) run(ctx context.Context, command string) (*labCommand, error) {
	c := &labCommand{Command: command}
	if err := cure.Within(command, p.pid); err != nil && !p.options.wholeHost {
		c.Refused = "it reaches further than the lab's network namespace: " + err.Error()
		return c, nil
	}
	return c, c.run(ctx)
}

// look runs a command that only looks.
func (p *labPatient) look(ctx context.Context, command string) (*labCommand, error) {
	c := &labCommand{Command: command}
	if err := cure.Reads(command); err != nil {
		c.Refused = err.Error()
		return c, nil
	}
	return c, c.run(ctx)
}

func (c *labCommand) run(ctx context.Context) error {
	r, err := cure.Run(ctx, c.Command)
	if errors.Is(err, cure.ErrMissing) { // there is no shell here
		c.Refused = err.Error()
		return nil
	}
	c.Code, c.Output = r.Code, r.Output
	return err
}

// shows says whether it is lnstat, which shows numbers and fails all the same.
func (c *labCommand) shows() bool {
	return strings.Contains(c.Command, "lnstat ") && c.Code == 1 && strings.ContainsAny(c.Output, "0123456789")
}

// prove sends packets again while whydrop watches.
func (p *labPatient) prove(ctx context.Context, c *labCure) error {
	o, err := observeLab(ctx, []uint32{p.setup.NetNS}, func() (err error) {
		c.Lost, err = p.setup.Prove(ctx, p.options.packets)
		return err
	})
	if err != nil {
		return err
	}
	c.Tried, c.Sent = true, uint64(p.options.packets)
	ask(ctx, &o, p.k)
	for _, f := range diagnose.Run(&o, p.k, diagnose.Options{All: true}).Findings {
		c.Found = append(c.Found, f.Cause)
		if f.Cause == p.finding.Cause {
			c.Again += f.Drops
		}
	}
	for _, ch := range diagnose.Compare(p.before, &o, p.k).Changes {
		if ch.Finding.Cause == p.finding.Cause {
			c.Outcome = ch.Outcome
		}
	}
	return nil
}

// mismatch lists what of the cure is not as it should be.
func (c *labCure) mismatch() []string {
	if c == nil {
		return nil
	}
	var list []string
	said := func(what string, cmd labCommand) {
		if cmd.Refused == "" && cmd.Code != 0 {
			list = append(list, fmt.Sprintf("%s: %q: exit status %d: %s", what, cmd.Command, cmd.Code, cmd.Output))
		}
	}
	if c.Command != nil {
		said("remedy", *c.Command)
	}
	for _, v := range c.Verify {
		if !v.shows() {
			said("verify", v)
		}
	}
	if c.Undo != nil {
		said("undo", *c.Undo)
	}
	if !c.Tried {
		return list
	}
	if float64(c.Lost) > stillLost*float64(c.Sent) {
		list = append(list, fmt.Sprintf("remedy: %d of %d packets are still lost", c.Lost, c.Sent))
	}
	if float64(c.Again) > stillLost*float64(c.Sent) {
		list = append(list, fmt.Sprintf("remedy: whydrop found %d of %d packets lost for the same cause after it", c.Again, c.Sent))
	}
	if c.Outcome == record.OutcomeSame || c.Outcome == record.OutcomeWorse {
		list = append(list, fmt.Sprintf("remedy: %d of %d packets are lost after it, and whydrop says %s", c.Lost, c.Sent, c.Outcome))
	}
	return list
}
