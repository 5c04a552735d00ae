package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// dumpFlags are the flags of `whydrop dump`: dwdump's, and two of ours.
type dumpFlags struct {
	write    string
	truncate uint32
	queue    uint32
	buffer   int
	origin   string

	query, stats, exit, passive bool

	duration time.Duration
	count    int
}

// allBytes is the truncation length that cuts nothing: an alert's attribute
// cannot hold more.
const allBytes = math.MaxUint16

// maxBuffer is the largest receive buffer, in bytes: the kernel doubles it in an
// int (sock_setsockopt of net/core/sock.c).
const maxBuffer = math.MaxInt32 / 2

func (a *app) dumpCommand() *cobra.Command {
	var d dumpFlags
	c := &cobra.Command{
		Use:   "dump [-w FILE]",
		Short: "Write the kernel's drop alerts to a pcap file, as dwdump does",
		Long: `dump writes the alerts of the kernel's drop monitor (NET_DM, packet mode) to a
pcap file of netlink messages, until it is interrupted. Wireshark and tshark
show it (filter: net_dm), "whydrop report -r FILE" says what it means. The
options are dwdump's.

A record has the time at which the kernel dropped the packet, by the host's
clock, in nanoseconds: it fits to a capture of tcpdump on the same host. (dwdump
writes when it read the message.) Alerts of several CPUs may therefore be out of
order; reordercap puts them in order. Where alerts were lost because the buffer
of the socket was full, the file has an overrun message with their number.

The monitor is one for the whole host. dump loads the module drop_monitor if it
is not loaded, and says so. Where the monitor runs already dump only listens, and
says whose it is; else it stops it at the end and restores the configuration.

Exit status: 0 ran; 2 wrong usage; 3 there is no drop monitor; 4 alerts were
lost.`,
		Example: `  whydrop dump -w drops.pcap
  whydrop dump | tshark -r - -Y net_dm -O net_dm
  whydrop dump -t 128 -l 10000 -o hw -w hardware.pcap --duration 1m`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := d.check(); err != nil {
				return err
			}
			switch {
			case d.query, d.stats, d.exit:
				return a.askMonitor(&d)
			}
			return a.dump(c.Context(), &d)
		},
	}
	f := c.Flags()
	f.StringVarP(&d.write, "write", "w", "-", "the `file` to write; - is standard output")
	f.Uint32VarP(&d.truncate, "trunc", "t", allBytes, "keep so many `bytes` of a packet; 0, or more than 65535, is all")
	f.BoolVarP(&d.query, "query", "q", false, "print the monitor's configuration and exit")
	f.Uint32VarP(&d.queue, "limit", "l", 1000, "let so many `packets` wait in the kernel, for each CPU")
	f.BoolVarP(&d.passive, "passive", "p", false, "only listen: start and set nothing")
	f.BoolVarP(&d.stats, "stats", "s", false, "print how many packets found the kernel's queue full, and exit")
	f.IntVarP(&d.buffer, "bufsize", "b", 1<<20, "the receive buffer of the socket, in `bytes`")
	f.StringVarP(&d.origin, "origin", "o", "", "only drops of `sw` or hw (default both)")
	f.BoolVarP(&d.exit, "exit", "e", false, "stop the monitor, whoever started it, and exit")
	f.DurationVar(&d.duration, "duration", 0, "how long to listen (default: until interrupted)")
	f.IntVarP(&d.count, "count", "c", 0, "end after so many alerts")
	// dwdump's -q is --query, so --quiet has no letter here.
	f.BoolVar(&a.quiet, "quiet", false, "print results and errors only")
	return c
}

// check refuses what means nothing.
func (d *dumpFlags) check() error {
	var alone []string
	for name, set := range map[string]bool{"-q": d.query, "-s": d.stats, "-e": d.exit, "-p": d.passive} {
		if set {
			alone = append(alone, name)
		}
	}
	switch {
	case len(alone) > 1:
		return usage(errors.New("dump: of -q, -s, -e and -p one at a time"))
	case d.origin != "" && d.origin != "sw" && d.origin != "hw":
		return usage(fmt.Errorf("--origin %q: want sw or hw", d.origin))
	case d.buffer <= 0 || d.buffer > maxBuffer:
		return usage(fmt.Errorf("--bufsize %d: want a number from 1 to %d", d.buffer, maxBuffer))
	case d.count < 0:
		return usage(fmt.Errorf("--count %d: want a positive number", d.count))
	case d.queue == 0:
		return usage(errors.New("--limit 0: want a positive number"))
	case d.write == "":
		return usage(errors.New("--write: name the file to write"))
	}
	if d.truncate == 0 || d.truncate > allBytes {
		d.truncate = allBytes
	}
	return checkDurations(map[string]time.Duration{"duration": d.duration})
}

func (d *dumpFlags) software() bool { return d.origin != "hw" }
func (d *dumpFlags) hardware() bool { return d.origin != "sw" }

// askMonitor does what needs no capture: -q, -s and -e. It loads no module: one
// that is not there has nothing to tell and does not run.
func (a *app) askMonitor(d *dumpFlags) (err error) {
	conn, err := dropmon.Dial(0)
	if err != nil {
		return noMonitor(err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	switch {
	case d.query:
		config, err := conn.Config()
		if err != nil {
			return noMonitor(err)
		}
		return a.printConfig(config)
	case d.stats:
		stats, err := conn.Stats()
		if err != nil {
			return noMonitor(err)
		}
		return a.printStats(stats)
	}
	return noMonitor(conn.Stop(d.software(), d.hardware()))
}

// noMonitor gives the error of what there is not, or may not be used, its exit
// code.
func noMonitor(err error) error {
	for _, known := range []error{dropmon.ErrNoFamily, dropmon.ErrNotInitialNetNS, os.ErrPermission} {
		if errors.Is(err, known) {
			return &exitError{exitUnavailable, err}
		}
	}
	return err
}

// printConfig prints what dwdump -q does.
func (a *app) printConfig(c dropmon.Config) error {
	if a.json {
		return report.JSON(a.out, map[string]any{
			"schema_version": record.SchemaVersion, "alert_mode": c.Mode.String(),
			"truncation_length": c.Truncate, "queue_length": c.Queue,
		})
	}
	_, err := fmt.Fprintf(a.out, "Alert mode: %s\nTruncation length: %d\nQueue length: %d\n", c.Mode, c.Truncate, c.Queue)
	return err
}

// printStats prints what dwdump -s does.
func (a *app) printStats(s dropmon.Stats) error {
	var b strings.Builder
	object := map[string]any{"schema_version": record.SchemaVersion}
	for _, t := range []struct {
		title, key string
		tail       dropmon.Tail
	}{{"Software statistics:\n", "software_tail_dropped", s.Software}, {"Hardware statistics:\n", "hardware_tail_dropped", s.Hardware}} {
		object[t.key] = nil
		if t.tail.Known {
			object[t.key] = t.tail.Dropped
			fmt.Fprintf(&b, "%sTail dropped: %d\n", t.title, t.tail.Dropped)
		}
	}
	if a.json {
		return report.JSON(a.out, object)
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

// dump captures until it is interrupted or has enough.
func (a *app) dump(ctx context.Context, d *dumpFlags) (err error) {
	out, err := a.openOutput(d.write)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.close()) }()
	// /dev/stdout too
	if f, ok := out.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return usage(errors.New("dump: a capture is nothing for a terminal: name a file (-w FILE), or send it through a pipe"))
	}
	// However it ends, the monitor must be stopped: also where the other end of
	// a pipe went away, or somebody is impatient.
	ctx, stop := signal.NotifyContext(ctx, ending(os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE)...)
	defer stop()
	begin := time.Now()
	m, err := dropmon.Open(dropmon.Options{
		Config:   &dropmon.Config{Mode: dropmon.ModePacket, Truncate: d.truncate, Queue: d.queue},
		Software: d.software(), Hardware: d.hardware(),
		LoadModule: true, Passive: d.passive, ReceiveBuffer: d.buffer,
	})
	if err != nil {
		return noMonitor(err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	a.sayMonitor(m)
	if err := out.begin(); err != nil {
		return err
	}
	c, err := newCapture(m.Conn(), out.out, begin)
	if err == nil {
		c.count = d.count
		err = c.run(ctx, d.duration)
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil // whoever read it has seen enough
	}
	if err != nil {
		return out.wrap(err)
	}
	return a.sayCaptured(c, out)
}

// sayMonitor says what became of the host's monitor.
func (a *app) sayMonitor(m *dropmon.Monitor) {
	for _, note := range m.Notes() {
		fmt.Fprintf(a.err, "whydrop: %s\n", report.Clean(note))
	}
	if joined := m.Joined(); joined != "" {
		fmt.Fprintf(a.err, "whydrop: %s\n", report.Clean(joined))
		// Without its configuration nothing is known about the mode.
		if c, err := m.Conn().Config(); err == nil && c.Mode == dropmon.ModeSummary {
			fmt.Fprintln(a.err, "whydrop: in that mode alerts count drops and hold no packets")
		}
	}
	fmt.Fprintln(a.progress(), "writing drop alerts, Ctrl-C ends it")
}

// sayCaptured sums up a capture. Its error has exit code 4 where alerts were
// lost.
func (a *app) sayCaptured(c *capture, out *output) error {
	switch {
	case out.file == nil:
	case a.json:
		if err := report.JSON(a.out, map[string]any{
			"schema_version": record.SchemaVersion, "file": out.path, "alerts": c.alerts,
			"alerts_lost": c.lost, "drops_lost": c.tail,
		}); err != nil {
			return err
		}
	case !a.quiet:
		fmt.Fprintf(a.err, "%d alerts in %s\n", c.alerts, out.path)
	}
	var lost []string
	if c.lost > 0 {
		lost = append(lost, fmt.Sprintf("%d alerts found the buffer of the socket full (-b makes it larger)", c.lost))
	}
	if c.tail > 0 {
		lost = append(lost, fmt.Sprintf("%d dropped packets found the kernel's queue full (-l makes it longer)", c.tail))
	}
	if lost != nil {
		return &exitError{exitPartial, errors.New("incomplete: " + strings.Join(lost, "; "))}
	}
	return nil
}
