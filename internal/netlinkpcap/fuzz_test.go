package netlinkpcap

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/whydrop/whydrop/record"
)

// FuzzRead reads arbitrary bytes as a file. It must end, keep the books, and give
// something that a record can hold.
func FuzzRead(f *testing.F) {
	for _, messages := range recordings(f) {
		f.Add(recorded(f, messages[:min(len(messages), 4)]))
	}
	b, err := Stats(testFamily, dropmonStats)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(capture(f, at{0, families(f, testFamily)}, at{0, b}, at{0, Overrun(3)}, at{0, summary(1, 2)}))
	few := recorded(f, recordings(f)["hw-netdevsim-bpo612-cloud"][:2])
	f.Add(ngFile(f, few, linkNetlink))
	f.Add(swap(f, few))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bufio.NewReader(bytes.NewReader(file)))
		if err != nil {
			return
		}
		last := r.Header().Start
		for {
			iv, err := r.Next()
			if err != nil {
				tr, ok := r.Trailer()
				if !ok || len(tr.Sources) != 1 || tr.End.Before(last) {
					t.Fatalf("trailer %+v %v", tr, ok)
				}
				if errors.Is(err, ErrTruncated) != errors.Is(err, record.ErrTruncated) {
					t.Fatal(err)
				}
				if again, second := r.Next(); second == nil || errors.Is(err, io.EOF) != errors.Is(second, io.EOF) {
					t.Fatalf("after the end: %+v %v", again, second)
				}
				return
			}
			if iv.Window.Start.Before(last) || iv.Window.End.Before(iv.Window.Start) || iv.Window.Duration != iv.Window.End.Sub(iv.Window.Start) {
				t.Fatalf("window %+v after %s", iv.Window, last)
			}
			last = iv.Window.End
			var sum uint64
			for _, c := range iv.Counts {
				sum += c.Drops
			}
			a := iv.Accounting
			if sum != a.DropsAggregated || a.DropsSeen != a.DropsAggregated+a.MapFull+a.DropsLost || uint64(len(iv.Samples)) > a.Samples {
				t.Fatalf("accounting %+v, counts %d, samples %d", a, sum, len(iv.Samples))
			}
			if _, err := json.Marshal(iv); err != nil {
				t.Fatal(err)
			}
		}
	})
}
