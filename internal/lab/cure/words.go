package cure

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// token is a word of a command, with its quotes taken off, or an operator.
type token struct {
	text string
	op   bool
}

var errUnclosed = errors.New("a quote is not closed")

// operators of sh, the longer ones first.
var operators = []string{"&&", "||", ">>", ";", "|", "&", ">", "<", "(", ")", "\n"}

// tokens takes a command apart as sh does, as far as the commands of remedies
// go: words, quotes, operators and comments.
func tokens(command string) ([]token, error) {
	var out []token
	var word strings.Builder
	inWord := false
	flush := func() {
		if inWord {
			out = append(out, token{text: word.String()})
		}
		word.Reset()
		inWord = false
	}
	for s := command; s != ""; {
		switch c := s[0]; {
		case c == ' ' || c == '\t':
			flush()
			s = s[1:]
			continue
		case c == '#' && !inWord:
			end := strings.IndexByte(s, '\n')
			if end < 0 {
				end = len(s)
			}
			s = s[end:]
			continue
		case c == '\'' || c == '"':
			text, rest, ok := strings.Cut(s[1:], string(c))
			if !ok {
				return nil, errUnclosed
			}
			word.WriteString(text)
			inWord, s = true, rest
			continue
		}
		if i := slices.IndexFunc(operators, func(op string) bool { return strings.HasPrefix(s, op) }); i >= 0 {
			flush()
			out = append(out, token{operators[i], true})
			s = s[len(operators[i]):]
			continue
		}
		word.WriteByte(s[0])
		inWord, s = true, s[1:]
	}
	flush()
	return out, nil
}

// simple is one program with its arguments, and what stands before it.
type simple struct {
	after string // the operator before, "" for the first
	words []string
}

// simples are the programs that a command calls. A redirection is a part of
// its command: its operator is a word of it.
func simples(command string) ([]simple, error) {
	all, err := tokens(command)
	if err != nil {
		return nil, err
	}
	var out []simple
	cur := simple{}
	for _, t := range all {
		if !t.op || t.text == ">" || t.text == ">>" || t.text == "<" {
			cur.words = append(cur.words, t.text)
			continue
		}
		if len(cur.words) > 0 {
			out = append(out, cur)
		}
		cur = simple{after: t.text}
	}
	if len(cur.words) > 0 {
		out = append(out, cur)
	}
	return out, nil
}

// programs are those that remedies change something with. What begins with
// another word is a sentence for a person, or what an application should do.
var programs = []string{
	"sysctl", "ip", "tc", "bridge", "nft", "ethtool", "conntrack", "bpftool", "devlink", "echo", "modprobe", "ipset", "ipvsadm",
	"iptables", "iptables-nft", "iptables-legacy", "ip6tables", "ip6tables-nft", "ip6tables-legacy", "ebtables", "kill",
}

// enter are the words by which a command enters a namespace: nsenter --net=FILE,
// ip netns exec NAME.
func (s simple) enter() (namespace string, rest []string) {
	w := s.words
	switch {
	case len(w) > 2 && w[0] == "nsenter" && strings.HasPrefix(w[1], "--net="):
		return strings.TrimPrefix(w[1], "--net="), w[2:]
	case len(w) > 4 && w[0] == "ip" && w[1] == "netns" && w[2] == "exec":
		return "/run/netns/" + w[3], w[4:]
	}
	return "", w
}

var (
	// blank is a word in capitals, which stands for what a person has to fill in:
	// GATEWAY, eth0.VID.
	blank = regexp.MustCompile(`[A-Z]{2,}`)
	// letter is a word that is one capital: classid C. Options are none.
	letter = regexp.MustCompile(`^[A-Z]$`)
	// capitals is a word of nothing else.
	capitals = regexp.MustCompile(`^[A-Z]{2,}$`)
	hex      = regexp.MustCompile(`^0x[0-9a-fA-F]+$`)
	// tables are programs whose own words are in capitals.
	tables = regexp.MustCompile(`^(ip6?|eb)tables`)
	// literal are those words.
	literal = []string{
		"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING", "DOCKER-USER", "ACCEPT", "DROP", "REJECT", "RETURN",
		"MASQUERADE", "SNAT", "DNAT", "TCPMSS", "CT", "NOTRACK", "NFQUEUE", "CHECKSUM", "MARK", "CONNMARK",
		"SYN", "SYN,RST", "SYN,RST,ACK", "ESTABLISHED", "RELATED", "NEW", "INVALID", "ESTABLISHED,RELATED", "RELATED,ESTABLISHED",
	}
)

// Complete says whether a command can be run as it stands: it calls programs
// that are known, and nothing is left for a person to fill in. The error says
// what is missing.
func Complete(command string) error {
	all, err := simples(command)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no command")
	}
	if strings.Contains(command, "…") {
		return errors.New("a part is left out")
	}
	for _, s := range all {
		_, words := s.enter()
		if s.after != "|" && !slices.Contains(programs, words[0]) {
			return fmt.Errorf("%q is no program that changes a setting", words[0])
		}
		for _, w := range words {
			switch {
			case hex.MatchString(w) || strings.HasPrefix(w, "-") && len(w) <= 3:
			case tables.MatchString(words[0]) && slices.Contains(literal, w):
			case blank.MatchString(w) || letter.MatchString(w):
				return fmt.Errorf("%s is to be filled in", w)
			}
		}
	}
	return nil
}

// filters are what may stand behind a pipe: they read it and write to nothing.
var filters = []string{"grep", "head", "tail", "wc", "sort", "cat"}

// Within says whether all that a command does stays in the network namespace
// of the process pid: each of its programs is started there by nsenter, or only
// reads what one of those prints. The error says what does not.
func Within(command string, pid int) error {
	if strings.ContainsAny(command, "`$\\") {
		return errors.New("it has something in it for the shell to work out")
	}
	all, err := simples(command)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no command")
	}
	own := fmt.Sprintf("/proc/%d/ns/net", pid)
	for _, s := range all {
		namespace, words := s.enter()
		for _, w := range words {
			if w == ">" || w == ">>" || w == "<" {
				return errors.New("it writes to or reads from a file")
			}
		}
		switch {
		case s.after == "&" || s.after == "(" || s.after == ")":
			return fmt.Errorf("it has %s in it", s.after)
		case s.after == "|" && slices.Contains(filters, words[0]):
		case namespace == "":
			return fmt.Errorf("%s is run for the whole host", words[0])
		case namespace != own:
			return fmt.Errorf("%s is run in another namespace, %s", words[0], namespace)
		case !slices.Contains(inside, words[0]):
			return fmt.Errorf("%s may do more than to the namespace's network", words[0])
		}
		if w := leaves(words); w != "" {
			return fmt.Errorf("%s %s reaches out of the namespace", words[0], w)
		}
	}
	return nil
}

// leaves is the word of a command by which one of the programs inside does
// something to another namespace or the host, "" without.
func leaves(words []string) string {
	for _, w := range words[1:] {
		switch {
		case strings.Contains(w, "netns") || strings.Contains(w, "modprobe") || w == "vrf": // vrf exec
			return w
		case slices.Contains([]string{"ip", "tc", "bridge"}, words[0]) && strings.HasPrefix(w, "-n"): // -n NAME
			return w
		case words[0] == "sysctl" && strings.HasPrefix(w, "-") && !slices.Contains([]string{"-w", "-n", "-a"}, w):
			return w
		case words[0] == "sysctl" && !strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "net.") && !strings.HasPrefix(w, "net/"):
			return w
		}
	}
	return ""
}

// inside are programs that a namespace of the network keeps in: what they look
// at and change is the network of the namespace that they run in.
var inside = []string{
	"sysctl", "ip", "tc", "bridge", "nft", "ethtool", "conntrack", "ipset", "ipvsadm", "ss", "nstat", "lnstat", "cat", "grep", "ping",
	"iptables", "iptables-nft", "iptables-legacy", "ip6tables", "ip6tables-nft", "ip6tables-legacy", "ebtables", "getent",
}

// Reads says whether all that a command does is to show something: it can be
// run anywhere. The error says what else it does, or what is to be filled in.
func Reads(command string) error {
	all, err := simples(command)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no command")
	}
	for _, s := range all {
		_, words := s.enter()
		if s.after == "&" || slices.Contains(words, ">") || slices.Contains(words, ">>") {
			return errors.New("it writes to a file or goes on")
		}
		if !shows(words) && (s.after != "|" || !slices.Contains(filters, words[0])) {
			return fmt.Errorf("%q may do more than show something", words[0])
		}
		if words[0] == "grep" {
			continue // what it looks for may be in capitals
		}
		for _, w := range words[1:] {
			if capitals.MatchString(w) && !hex.MatchString(w) && !strings.HasPrefix(w, "-") {
				return fmt.Errorf("%s is to be filled in", w)
			}
		}
	}
	return nil
}

// shows says whether a program with these arguments only shows something.
func shows(words []string) bool {
	var rest []string
	for _, w := range words[1:] {
		if !strings.HasPrefix(w, "-") {
			rest = append(rest, w)
		}
	}
	has := func(list ...string) bool {
		return slices.ContainsFunc(rest, func(w string) bool { return slices.Contains(list, w) })
	}
	switch words[0] {
	case "nstat", "lnstat", "cat", "grep", "head", "getent", "lsmod":
		return true
	case "ss":
		return !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") && strings.Contains(w, "K") || w == "--kill" })
	case "ip", "bridge", "tc":
		return len(rest) == 1 || has("show", "list", "get", "ls") && !has("add", "del", "set", "change", "replace", "flush", "exec", "append")
	case "nft":
		return len(rest) > 0 && rest[0] == "list"
	case "sysctl":
		return !slices.ContainsFunc(words, func(w string) bool { return w == "-w" || w == "-p" || w == "--system" || strings.Contains(w, "=") })
	case "bpftool":
		return has("show", "list", "tree", "dump")
	case "ethtool":
		return len(words) == 3 && slices.Contains([]string{"-S", "-k", "-i", "-g", "-c", "-a", "-l", "-m"}, words[1])
	case "conntrack":
		return len(words) == 2 && slices.Contains([]string{"-S", "-C", "-L"}, words[1])
	case "iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft":
		return slices.ContainsFunc(words, func(w string) bool {
			return w == "-S" || strings.HasPrefix(w, "-L") || strings.HasSuffix(w, "L") && strings.HasPrefix(w, "-")
		}) &&
			!slices.ContainsFunc(words, func(w string) bool {
				return slices.Contains([]string{"-A", "-I", "-D", "-F", "-P", "-N", "-X", "-R", "-Z"}, w)
			})
	}
	return false
}
