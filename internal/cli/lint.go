package cli

import (
	"fmt"
	"io/fs"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// lint prints the problems of a knowledge base, one a line.
func (a *app) lint(fsys fs.FS, name string) error {
	k, problems := diagnose.Lint(fsys, observe.CheckFact)
	causes := 0
	if k != nil {
		causes = len(k.Causes())
	}
	if a.json {
		if problems == nil {
			problems = []string{}
		}
		if err := report.JSON(a.out, map[string]any{
			"schema_version": record.SchemaVersion, "causes": causes, "problems": problems,
		}); err != nil {
			return err
		}
	} else {
		for _, p := range problems {
			if _, err := fmt.Fprintln(a.out, report.Clean(p)); err != nil {
				return fmt.Errorf("print problems: %w", err)
			}
		}
	}
	if n := len(problems); n > 0 {
		return &exitError{exitFinding, fmt.Errorf("%s: %d problem(s)", name, n)}
	}
	if !a.quiet && !a.json {
		if _, err := fmt.Fprintf(a.out, "%s: %d causes, no problem\n", report.Clean(name), causes); err != nil {
			return fmt.Errorf("print result: %w", err)
		}
	}
	return nil
}
