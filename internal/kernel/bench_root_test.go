//go:build root

package kernel

import (
	"errors"
	"io"
	"os"
	"testing"
)

// BenchmarkReadKallsyms is what the kernel itself takes, to compare
// BenchmarkLoadSymbols with.
func BenchmarkReadKallsyms(b *testing.B) {
	buf := make([]byte, 64<<10)
	for b.Loop() {
		f, err := os.Open("/proc/kallsyms")
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = f.Read(buf)
		}
		f.Close()
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadSymbols(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Host{}).LoadSymbols(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolveLive(b *testing.B) {
	s, err := Host{}.LoadSymbols()
	if err != nil {
		b.Fatal(err)
	}
	first, last := s.symbols[0].addr, s.symbols[s.Len()/2].addr
	x := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		x = x*6364136223846793005 + 1442695040888963407
		s.Resolve(first + x>>32%(last-first))
	}
}

func BenchmarkLoadBTF(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Host{}).LoadBTF(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKfreeSkbArgs(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		loaded, err := Host{}.LoadBTF()
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := KfreeSkbArgs(loaded.Spec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadReasons(b *testing.B) {
	loaded, err := Host{}.LoadBTF()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if r := (Host{}).LoadReasons(loaded); r.From() != FromBTF {
			b.Fatal(r.Why())
		}
	}
}

func BenchmarkScanDropReasons(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Host{}).scanDropReasons(); err != nil {
			b.Fatal(err)
		}
	}
}
