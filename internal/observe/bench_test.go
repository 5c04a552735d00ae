package observe

import (
	"fmt"
	"os"
	"testing"
)

// BenchmarkNext is what an interval of `whydrop counters` costs: the host and
// the own namespace, read again and compared.
func BenchmarkNext(b *testing.B) {
	w, err := WatchCounters(CounterOptions{NetNS: []string{fmt.Sprint(os.Getpid())}})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	b.ReportAllocs()
	for b.Loop() {
		if list, _ := w.Next(); len(list) == 0 {
			b.Fatal("nothing was read")
		}
	}
}
