package counter

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// sixFiles are the files that most losses are in. All kernels have them, and
// everybody may read them.
func sixFiles() []file {
	return []file{
		{name: "snmp", scan: scanTables, command: nstat("/proc/net/snmp")},
		{name: "snmp6", scan: scanSNMP6, table: "snmp6", command: nstat("/proc/net/snmp6")},
		{name: "netstat", scan: scanTables, command: nstat("/proc/net/netstat")},
		{name: "softnet_stat", scan: scanSoftnet, table: "softnet", online: onlineCPUs},
		{name: "dev", scan: scanDev},
		{name: "sockstat", scan: scanSockstat, levels: true},
	}
}

// sixReader is a Reader of the six files that has read them twice, in the
// namespace of a thread that it keeps.
func sixReader(t testing.TB) (*Reader, *Snapshot) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r := &Reader{files: newFileSet(thread, procfs, sixFiles())}
	t.Cleanup(r.Close)
	s := &Snapshot{}
	for range 2 {
		r.Read(s)
	}
	if len(s.Missing) > 0 || len(s.Values) < 300 {
		t.Fatalf("%d values, missing %+v", len(s.Values), s.Missing)
	}
	return r, s
}

// TestReaderAllocates: a pass over files whose names do not change needs no
// memory. The kernel may add a column meanwhile (IcmpMsg), so one of several
// tries must do.
func TestReaderAllocates(t *testing.T) {
	r, s := sixReader(t)
	var got []float64
	for range 5 {
		n := testing.AllocsPerRun(20, func() { r.Read(s) })
		if n == 0 {
			return
		}
		got = append(got, n)
	}
	t.Errorf("allocations in a pass, in five tries: %v", got)
}

func BenchmarkReadSixFiles(b *testing.B) {
	r, s := sixReader(b)
	b.ReportAllocs()
	b.ReportMetric(float64(len(s.Values)), "values")
	for b.Loop() {
		r.Read(s)
	}
}

// BenchmarkReadSixFilesOnce is what a pass costs that keeps nothing.
func BenchmarkReadSixFilesOnce(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	for b.Loop() {
		var s Snapshot
		s.readFiles(thread, sixFiles())
	}
}

// BenchmarkParse is the part of a pass that is not the kernel's.
func BenchmarkParse(b *testing.B) {
	for _, f := range sixFiles() {
		text, err := os.ReadFile(filepath.Join("/proc/net", f.name))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(f.name, func(b *testing.B) {
			set := newFileSet("", "", []file{f})
			b.ReportAllocs()
			for b.Loop() {
				if err := f.scan(&set.files[0].sheet, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
