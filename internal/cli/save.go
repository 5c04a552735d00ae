package cli

import (
	"errors"

	"github.com/whydrop/whydrop/record"
)

// keep writes an observation to what --save names, if anything, as one interval:
// read again it is the same observation.
func (w *watching) keep(o *record.Observation) error {
	if w.saved == nil {
		return nil
	}
	if err := w.saved.begin(); err != nil {
		return err
	}
	h := w.header
	h.Host, h.Kernel, h.Start, h.Asked = o.Host, o.Kernel, o.Window.Start, w.asked()
	out, err := record.NewWriter(w.saved.out, h)
	if err != nil {
		return w.saved.wrap(err)
	}
	err = out.Interval(record.Interval{Window: o.Window, Counts: o.Counts, Samples: w.traffic.marked(o.Samples), Accounting: o.Accounting})
	err = errors.Join(err, out.Close(record.Trailer{
		End: o.Window.End, Sources: o.Sources, Blind: o.Blind,
		Counters: o.Counters, CountersWindow: o.CountersWindow, Facts: o.Facts,
	}))
	return w.saved.wrap(err)
}
