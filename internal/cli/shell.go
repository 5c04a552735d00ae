package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/internal/shell"
)

// dropwatch is the name under which the program is its shell.
const dropwatch = "dropwatch"

// Args are the arguments for Main of a process that was started with argv: a
// program called dropwatch is `whydrop shell`.
func Args(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if filepath.Base(argv[0]) == dropwatch {
		return append([]string{"shell"}, argv[1:]...)
	}
	return argv[1:]
}

func (a *app) shellCommand() *cobra.Command {
	var method string
	c := &cobra.Command{
		Use:   "shell",
		Short: "dropwatch's prompt: start, stop, set, show, stats, help, exit",
		Long: `shell is dropwatch: the same prompt, commands, messages and lines, on the kernel's
drop monitor (NET_DM), also when the program is called dropwatch. help lists the
commands; after start, Ctrl-C stops and returns to the prompt. A terminal gets a
line editor with a history; from a pipe it reads commands as dropwatch does.
What dropwatch is silent about is said on stderr. What it started is stopped, and
what it changed is set back, however it ends.

Without -l addresses are printed as they are, and no symbols are read. The kernel
loads its module drop_monitor for this if need be. Where it has none, or in another
network namespace, eBPF watches instead.

docs/compatibility.md lists what differs from dropwatch. Exit status: 0 all went
well, 4 something did not or drops are missing, 3 nothing can be watched here.`,
		Example: `  whydrop shell -l kas
  whydrop shell -l /boot/System.map-$(uname -r)
  printf 'set alertlimit 10\nstart\nexit\n' | whydrop shell -l kas
  ln -s whydrop dropwatch && ./dropwatch -l list`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return usage(errors.New("shell prints what dropwatch prints; whydrop watch -j prints JSON"))
			}
			return a.shell(method)
		},
	}
	c.Flags().StringVarP(&method, "lmethod", "l", "", "how to name functions: kas (/proc/kallsyms), a `FILE` (System.map, vmlinux), or list")
	return c
}

// lookup is a method of naming functions.
type lookup struct {
	// source is kernel.OpenNames's, title what the shell calls it.
	source, title string
}

var (
	lookupNone = lookup{kernel.SymbolsNone, "null lookup method"}
	lookupKas  = lookup{kernel.SymbolsKallsyms, "kallsyms db"}
)

// findLookup understands -l. Of kas only the beginning counts, as in dropwatch,
// unless there is a file of that name.
func findLookup(method string) (lookup, error) {
	switch method {
	case "":
		return lookupNone, nil
	case "kas":
		return lookupKas, nil
	}
	_, err := os.Stat(method)
	if err == nil {
		source := method
		if !strings.ContainsRune(source, os.PathSeparator) {
			source = "./" + source // whatever a file is called
		}
		return lookup{source, "symbols of " + method}, nil
	}
	switch {
	case strings.HasPrefix(method, "kas"):
		return lookupKas, nil
	case method == kernel.SymbolsNone:
		return lookupNone, nil
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err // without the name, which may hold anything
	}
	return lookup{}, err
}

func (a *app) shell(method string) error {
	if _, err := os.Stat(method); method == "list" || strings.HasPrefix(method, "list") && err != nil {
		_, err := fmt.Fprint(a.out, "Available lookup methods:\nkas - use /proc/kallsyms\nFILE - use a System.map, or a vmlinux with debugging information\n")
		return err
	}
	how, err := findLookup(method)
	if err != nil {
		fmt.Fprintf(a.out, "Unknown lookup method %s\n", report.Clean(method))
		return usage(fmt.Errorf("-l %q: neither kas nor list nor a file: %w", method, err))
	}
	backend, err := a.shellBackend()
	if err != nil {
		return err
	}
	defer backend.Close() // it holds sockets only
	o := shell.Options{In: a.in, Out: a.out, Err: a.err, Backend: backend, Method: how.title}
	var lacking error
	if how != lookupNone {
		names, err := kernel.Host{}.OpenNames(how.source)
		if err == nil {
			defer names.Close()
			o.Names = names
			err = names.Ready()
		}
		if err != nil {
			fmt.Fprintf(a.err, "whydrop: addresses are not named: %v\n", err)
		}
		if err != nil && !errors.Is(err, kernel.ErrNotPlaced) { // packets may place them yet
			lacking = &exitError{code: exitPartial}
		}
	}
	ctx, interrupts, stop := shellSignals()
	defer stop()
	o.Interrupts = interrupts
	if err := shell.Run(ctx, o); err != nil {
		return err
	}
	return lacking
}

// shellBackend is the drop monitor, or eBPF where there is none.
func (a *app) shellBackend() (shell.Backend, error) {
	backend, note, err := shell.OpenDropMonitor()
	if err == nil {
		if note != "" {
			fmt.Fprintf(a.err, "whydrop: %s\n", note)
		}
		return backend, nil
	}
	backend, berr := shell.OpenBPF(release)
	if berr != nil {
		fmt.Fprintln(a.out, "Unable to find NET_DM family, dropwatch can't work")
		return nil, &exitError{exitUnavailable, fmt.Errorf("%w; and %w", err, berr)}
	}
	fmt.Fprintf(a.err, "whydrop: %v; watching with eBPF instead\n", err)
	return backend, nil
}

// ending adds SIGHUP to signals, unless it is ignored: so nohup wants it.
func ending(signals ...os.Signal) []os.Signal {
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// shellSignals hands on Ctrl-C and ends the context on what else ends a program:
// a closed pipe too, or the drop monitor would go on without it.
func shellSignals() (context.Context, <-chan os.Signal, func()) {
	ctx, stop := signal.NotifyContext(context.Background(), ending(syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGQUIT)...)
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	return ctx, interrupts, func() {
		signal.Stop(interrupts)
		stop()
	}
}
