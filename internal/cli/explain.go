package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [NAME]",
		Short: "Explain a cause, drop reason, counter, station, class or function",
		Long: `explain says what is known about NAME: the id of a cause, a drop reason of the
kernel, a counter (also as nstat spells it), a station on the packet's way, a
class of findings, or a function of the kernel that drops packets. Upper and
lower case are the same. Without NAME it lists what there is. It needs neither
root nor a particular kernel. In commands, ${...} stands for what a diagnosis
computes.`,
		Example: `  whydrop explain udp-rcvbuf
  whydrop explain SOCKET_RCVBUFF
  whydrop explain UdpRcvbufErrors
  whydrop explain udp_queue_rcv_one_skb -j`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(fmt.Errorf("explain: name one thing, got %q", args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := a.loadBook()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.contents(b)
			}
			topics := b.find(args[0])
			if len(topics) == 0 {
				return usage(b.unknown(args[0]))
			}
			if a.json {
				return report.JSON(a.out, map[string]any{"schema_version": record.SchemaVersion, "topics": topics})
			}
			return report.Explain(a.out, topics, a.style(true))
		},
	}
}

// unknown names what the user may have meant.
func (b *book) unknown(name string) error {
	text := fmt.Sprintf("explain: nothing is known about %q", name)
	var names []string
	for _, kind := range b.kinds() {
		names = append(names, b.names[kind]...)
	}
	if near := kernel.Nearest(name, names, 5, plain); len(near) > 0 {
		text += "; is it " + strings.Join(near, ", ") + "?"
	} else {
		text += "; `whydrop explain` lists what there is"
	}
	return errors.New(text)
}

// contents lists all names, by kind.
func (a *app) contents(b *book) error {
	if a.json {
		names := map[string]any{"schema_version": record.SchemaVersion}
		for _, kind := range b.kinds() {
			names[kind] = b.names[kind]
		}
		return report.JSON(a.out, names)
	}
	var out strings.Builder
	for _, kind := range b.kinds() {
		fmt.Fprintf(&out, "%s (%d)\n", kind, len(b.names[kind]))
		for _, n := range b.names[kind] {
			line := "  " + n
			if c := b.knowledge.Cause(n); kind == kindCause && c != nil {
				line = fmt.Sprintf("  %-24s %s", n, b.heading(c.Explanation, c.Title))
			}
			out.WriteString(report.Clean(line) + "\n")
		}
	}
	if _, err := a.out.Write([]byte(out.String())); err != nil {
		return fmt.Errorf("print contents: %w", err)
	}
	return nil
}

// heading is the first line of an explanation, else the title.
func (b *book) heading(text, title string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if h, ok := strings.CutPrefix(first, "# "); ok {
		return h
	}
	return title
}

// plain is a name as it is compared: UdpRcvbufErrors is Udp.RcvbufErrors.
func plain(s string) string {
	s = strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(s)), "SKB_DROP_REASON_")
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToLower(s))
}

// knowledgeCommand holds what is for authors of causes.
func (a *app) knowledgeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "knowledge",
		Short: "Check the knowledge base",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "lint [DIR]",
		Short: "Check causes, explanations and cases",
		Long: `lint checks the built-in knowledge base, or a directory of the same form
(causes, reasons, locations, counters): its files, expressions and names, and
that each cause is found in its cases and not in their near misses. A directory
of your own causes, as --knowledge takes it (ID/cause.yaml, or a part of that
form), is checked together with what is built in: no cause may take the findings
of another. Exit status 1 means that there are problems.`,
		Example: `  whydrop knowledge lint
  whydrop knowledge lint ./knowledge
  whydrop knowledge lint /etc/whydrop/causes.d`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(fmt.Errorf("knowledge lint: name one directory, got %q", args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.lint(knowledge.FS, "the built-in knowledge base")
			}
			return a.lintDir(args[0])
		},
	})
	return c
}
