package cli

import (
	"fmt"
	"os"

	"github.com/whydrop/whydrop/internal/netlinkpcap"
	"github.com/whydrop/whydrop/record"
)

// recording is a file that holds what was seen elsewhere: record.Reader and its
// like for other formats.
type recording interface {
	Header() record.Header
	// Next returns io.EOF at the end, and an error that is record.ErrTruncated
	// where a file ends early.
	Next() (record.Interval, error)
	Trailer() (record.Trailer, bool)
}

// captureBegins is how many bytes tell a capture from a record.
const captureBegins = 4

// openRecord opens a file of `whydrop record`, of `whydrop dump` or of dwdump,
// gzipped or not, or standard input for "-"; it is a usage error if it is none.
// The returned function ends the reading.
func (a *app) openRecord(path string) (recording, func(), error) {
	in, done := a.in, func() {}
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, usage(err)
		}
		// It is only read: closing can lose nothing.
		in, done = f, func() { _ = f.Close() }
	}
	failed := func(err error) (recording, func(), error) {
		done()
		return nil, nil, usage(fmt.Errorf("%s: %w", path, err))
	}
	plain, err := netlinkpcap.Plain(in)
	if err != nil {
		return failed(err)
	}
	// A file that cannot be read fails again where it is read.
	if begin, _ := plain.Peek(captureBegins); netlinkpcap.Is(begin) {
		r, err := netlinkpcap.NewReader(plain)
		if err != nil {
			return failed(err)
		}
		return r, done, nil
	}
	r, err := record.NewReader(plain)
	if err != nil {
		return failed(err)
	}
	return r, done, nil
}
