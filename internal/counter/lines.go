package counter

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"strconv"
)

// errCutOff says that a file ended in the middle of a line. The last number
// of it may have lost digits, so the line is not used.
var errCutOff = errors.New("the last line is cut off")

// lines yields the lines that end with a newline, without it. Afterwards cut
// is errCutOff if something follows the last of them.
func lines(text []byte, cut *error) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(text) > 0 {
			line, rest, whole := bytes.Cut(text, []byte{'\n'})
			if !whole {
				*cut = errCutOff
				return
			}
			if !yield(line) {
				return
			}
			text = rest
		}
	}
}

// parseCount parses a number that only grows. It says false, without an
// error, for a negative one: what can be negative is no counter.
func parseCount(text []byte) (v uint64, ok bool, err error) {
	if len(text) > 1 && text[0] == '-' {
		_, err := strconv.ParseInt(string(text), 10, 64)
		return 0, false, err
	}
	v, err = strconv.ParseUint(string(text), 10, 64)
	return v, err == nil, err
}

// add is a + b, or an error where that is above 64 bits.
func add(a, b uint64) (uint64, error) {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return 0, fmt.Errorf("%d + %d is above 64 bits", a, b)
	}
	return sum, nil
}

// parseErrors is parseError for a list and one more; without any it needs no
// memory.
func parseErrors(source string, errs []error, last error) error {
	if len(errs) == 0 && last == nil {
		return nil
	}
	return parseError(source, append(errs, last)...)
}

// parseError wraps what was wrong with a source, or is nil. A file that is no
// table at all is wrong in every line, so only the first few are named.
func parseError(source string, errs ...error) error {
	const most = 3
	var first []error
	more := 0
	for _, err := range errs {
		switch {
		case err == nil:
		case len(first) < most:
			first = append(first, err)
		default:
			more++
		}
	}
	if more > 0 {
		first = append(first, fmt.Errorf("and %d more", more))
	}
	if err := errors.Join(first...); err != nil {
		return fmt.Errorf("parse %s: %w", source, err)
	}
	return nil
}

// clip shortens what an error quotes.
func clip(b []byte) []byte { return b[:min(len(b), 60)] }
