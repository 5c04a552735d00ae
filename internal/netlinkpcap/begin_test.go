package netlinkpcap

import (
	"testing"
	"time"
)

// TestBegin: what a file begins with tells when it began, and in which mode the
// monitor was.
func TestBegin(t *testing.T) {
	named := at{0, families(t, testFamily)}
	for name, tt := range map[string]struct {
		records []at
		start   time.Duration // since testStart
		from    string
	}{
		"a drop":                       {[]at{named, {time.Second, someDrop(time.Second).message(t)}}, 0, Source},
		"a drop before it was written": {[]at{named, {time.Second, someDrop(-time.Millisecond).message(t)}}, -time.Millisecond, Source},
		"a drop of long ago":           {[]at{named, {time.Second, someDrop(-24 * time.Hour).message(t)}}, 0, Source},
		"a summary":                    {[]at{named, {time.Second, summary(1, 2)}}, 0, "none"},
		"no alert":                     {[]at{named, {time.Second, Overrun(1)}}, 0, Source},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe(t, capture(t, tt.records...))
			if want := testStart.Add(tt.start); !o.Window.Start.Equal(want) {
				t.Errorf("begins at %s, want %s", o.Window.Start, want)
			}
			if o.Kernel.ReasonsFrom != tt.from {
				t.Errorf("reasons from %q, want %q", o.Kernel.ReasonsFrom, tt.from)
			}
		})
	}
}
