// Package cli holds the commands and flags of whydrop and wires the other
// rooms together.
//
// It must not compute anything about drops itself: what is seen comes from
// observe, what it means from diagnose, what is printed from report.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/filter"
	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
)

// The exit codes of every command.
const (
	exitOK          = 0 // ran, and nothing at or above --fail-on
	exitFinding     = 1 // a finding at or above --fail-on
	exitUsage       = 2 // wrong flags or arguments, or no such file
	exitUnavailable = 3 // no source works here
	exitPartial     = 4 // ran, but something that was asked for is missing
)

// exitError carries an exit code. An empty message prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error { return &exitError{exitUsage, err} }

// app is what the commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	signals  *signals // nil where none are caught

	json  bool
	quiet bool
	ascii bool
	color string
	// knowledgeDirs are directories of somebody's own causes.
	knowledgeDirs []string
}

// Main runs whydrop and returns its exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, sig, stop := catchSignals()
	defer stop()
	a := &app{in: in, out: out, err: errOut, signals: sig}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil || sig.monitor.Load() && errors.Is(err, syscall.EPIPE) {
		return exitOK // whoever reads the output has seen enough
	}
	code := exitCode(err)
	if msg := clean(strings.TrimSpace(err.Error())); msg != "" {
		fmt.Fprintf(errOut, "whydrop: %s\n", msg)
		if code == exitUsage {
			fmt.Fprintln(errOut, "try: whydrop --help")
		}
	}
	return code
}

// clean is report.Clean for a message of several lines: names in files that come
// from elsewhere are in it.
func clean(msg string) string {
	lines := strings.Split(msg, "\n")
	for i := range lines {
		lines[i] = report.Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

func exitCode(err error) int {
	var exit *exitError
	var unavailable *observe.UnavailableError
	var filter *observe.FilterError
	var symbols *observe.SymbolsError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &unavailable):
		return exitUnavailable
	case errors.Is(err, kernel.ErrNotPlaced):
		return exitUnavailable
	case errors.As(err, &filter), errors.As(err, &symbols):
		return exitUsage
	}
	return exitPartial
}

func (a *app) root() *cobra.Command {
	c := a.diagnoseCommand()
	c.Use = "whydrop [flags]"
	c.Args = noArgs
	c.Short = "Say where, why and whose packets this host drops"
	c.Long = strings.TrimSpace(`
whydrop watches the packets that this Linux host drops and says where it
happens, why, whose they are, and what could not be seen. Without a command
it watches for 10 seconds and prints the verdict, as "whydrop diagnose" does.

It needs root, or the capabilities CAP_BPF, CAP_PERFMON, CAP_SYSLOG and
CAP_NET_ADMIN; "whydrop doctor" says what this host allows. It changes
nothing, and nothing of it stays behind when it ends, however it ends; but the
kernel's drop monitor, where that is used, is one for the whole host, and after
kill -9 goes on until "whydrop doctor --recover-dropmon" puts it back.

` + sourceHelp + `

` + symbolsHelp + `

` + knowledgeHelp + `

Network namespaces are all looked at that can be entered. --netns takes a name
under /run/netns, "host", "all", the number of a process (of its namespace), an
inode as net:[4026531840] or 4026531840, or the name that whydrop prints where a
namespace has none: docker/4f1d0c5a9b3e, pod/3f2a1b4c, unit/nginx.service.

Exit status: 0 ran; 1 a finding at or above --fail-on, or with verify one that is
not better; 2 wrong usage; 3 nothing can be watched here; 4 ran, but what it says
is incomplete.`)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.CompletionOptions.HiddenDefaultCmd = true
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	p := c.PersistentFlags()
	p.BoolVarP(&a.json, "json", "j", false, "print JSON: one object, or one a line where output streams")
	p.BoolVarP(&a.quiet, "quiet", "q", false, "print results and errors only")
	p.StringVar(&a.color, "color", "auto", "colour: auto, always or never (NO_COLOR turns auto off)")
	a.knowledgeFlag(c)
	p.BoolP("numeric", "n", false, "accepted: addresses are always numeric")
	c.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch a.color {
		case "auto", "always", "never":
			return nil
		}
		return usage(fmt.Errorf("--color %q: want auto, always or never", a.color))
	}
	c.SetHelpCommand(helpCommand(c))
	diagnose := a.diagnoseCommand()
	c.AddCommand(diagnose, a.watchCommand(), a.countersCommand(), a.recordCommand(), a.reportCommand(), a.verifyCommand(), a.dumpCommand(), a.shellCommand(), a.doctorCommand(),
		a.labCommand(), a.explainCommand(), a.knowledgeCommand(), a.versionCommand())
	return c
}

// helpCommand is cobra's, but for a command that does not exist it fails.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about a command",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || c == nil || len(rest) > 0 {
				return usage(fmt.Errorf("no command %q", strings.Join(args, " ")))
			}
			return c.Help()
		},
	}
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		if _, err := filter.Parse(args...); err == nil {
			return usage(fmt.Errorf("no command %q: a FILTER goes behind one: whydrop diagnose %s", args[0], strings.Join(args, " ")))
		}
		return usage(fmt.Errorf("no command %q", args[0]))
	}
	return usage(fmt.Errorf("%s takes no argument, got %q", c.CommandPath(), args[0]))
}
