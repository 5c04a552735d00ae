package shell

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// verb is what a line asks for.
type verb uint8

const (
	verbNone verb = iota // an empty line
	verbStart
	verbStop
	verbExit
	verbHelp
	verbShow
	verbStats
	verbAlertLimit
	verbAlertMode
	verbTrunc
	verbQueue
	verbSoftware
	verbHardware
)

// command is a line that was understood.
type command struct {
	verb verb
	// number is that of alertlimit, trunc and queue.
	number uint64
	mode   dropmon.Mode
	on     bool
}

// errBoolean is dropwatch's own message.
var errBoolean = errors.New("invalid boolean value")

// settable lists what set takes.
const settable = "alertlimit NUMBER, alertmode summary|packet, trunc LEN, queue LEN, sw true|false, hw true|false"

// parse understands what dropwatch does: start, stop, exit and help are words;
// of show, stats, set alertlimit and the modes only the beginning counts
// (strncmp in enter_command_line_mode, src/main.c of dropwatch 1.5). Where
// dropwatch guesses or says nothing, parse returns an error.
func parse(line string) (command, error) {
	line = strings.TrimSpace(line)
	switch line {
	case "":
		return command{verb: verbNone}, nil
	case "start":
		return command{verb: verbStart}, nil
	case "stop":
		return command{verb: verbStop}, nil
	case "exit":
		return command{verb: verbExit}, nil
	case "help":
		return command{verb: verbHelp}, nil
	}
	word, rest := cut(line)
	switch {
	case word == "set":
		return parseSet(rest)
	case strings.HasPrefix(line, "show"):
		return command{verb: verbShow}, nil
	case strings.HasPrefix(line, "stats"):
		return command{verb: verbStats}, nil
	}
	return command{}, fmt.Errorf("no command %q; help lists them", line)
}

// cut splits off the first word.
func cut(s string) (word, rest string) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

func parseSet(what string) (command, error) {
	if number, ok := strings.CutPrefix(what, "alertlimit"); ok {
		n, err := parseNumber("alertlimit", number, 64)
		return command{verb: verbAlertLimit, number: n}, err
	}
	word, value := cut(what)
	switch word {
	case "":
		return command{}, errors.New("set what? " + settable)
	case "trunc":
		n, err := parseNumber(word, value, 32)
		return command{verb: verbTrunc, number: n}, err
	case "queue":
		n, err := parseNumber(word, value, 32)
		return command{verb: verbQueue, number: n}, err
	case "sw":
		on, err := parseBool(value)
		return command{verb: verbSoftware, on: on}, err
	case "hw":
		on, err := parseBool(value)
		return command{verb: verbHardware, on: on}, err
	}
	if strings.HasPrefix(word, "alertmode") {
		return parseMode(value)
	}
	return command{}, fmt.Errorf("cannot set %q: %s", word, settable)
}

func parseMode(value string) (command, error) {
	switch {
	case strings.HasPrefix(value, "summary"):
		return command{verb: verbAlertMode, mode: dropmon.ModeSummary}, nil
	case strings.HasPrefix(value, "packet"):
		return command{verb: verbAlertMode, mode: dropmon.ModePacket}, nil
	}
	return command{}, fmt.Errorf("alertmode %q: want summary or packet", value)
}

// parseNumber reads a decimal number of so many bits.
func parseNumber(what, s string, bits int) (uint64, error) {
	s = strings.TrimSpace(s)
	n, err := strconv.ParseUint(s, 10, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%s %s: want a number of at most %d bits", what, s, bits)
	case err != nil:
		return 0, fmt.Errorf("%s %q: want a number", what, s)
	}
	return n, nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errBoolean
}
