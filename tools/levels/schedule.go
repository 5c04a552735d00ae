package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// schedule runs levels, some at the same time, and prints what each said in one
// piece.
type schedule struct {
	out io.Writer
	setting

	printing sync.Mutex
}

// run runs the levels and returns what each counted, in their order.
func (s *schedule) run(todo []level) []*tally {
	done := make([]*tally, len(todo))
	alone := make(chan struct{}) // closed when besideMachines may begin
	var others sync.WaitGroup
	others.Go(func() {
		for i, l := range todo {
			if l.when == besideMachines {
				<-alone
			}
			if l.when == beside || l.when == besideMachines {
				done[i] = s.aside(l)
			}
		}
	})
	free := sync.OnceFunc(func() { close(alone) })
	for i, l := range todo {
		switch l.when {
		case machines:
			free()
			done[i] = s.level(l, &locked{&s.printing, s.out})
		case inTurn:
			done[i] = s.level(l, &locked{&s.printing, s.out})
		}
	}
	free()
	others.Wait()
	for i, l := range todo {
		if l.when == last {
			done[i] = s.level(l, s.out)
		}
	}
	return done
}

// aside runs a level and prints what it said when it has ended.
func (s *schedule) aside(l level) *tally {
	var said bytes.Buffer
	t := s.level(l, &said)
	s.printing.Lock()
	defer s.printing.Unlock()
	_, _ = s.out.Write(said.Bytes())
	return t
}

func (s *schedule) level(l level, out io.Writer) *tally {
	_, _ = fmt.Fprintf(out, "\n=== %s: %s\n", l.name, l.what)
	t := &tally{level: l.name, out: out}
	start := time.Now()
	r := &runner{setting: s.setting, out: out, t: t}
	if err := l.run(r); err != nil {
		t.fail(l.name, err.Error())
	}
	if t.passed+t.failed+t.skipped == 0 {
		t.fail(l.name, "found nothing to run")
	}
	t.took = time.Since(start)
	_, _ = fmt.Fprintf(out, "--- %s: %d passed, %d failed, %d skipped in %.1f s\n",
		l.name, t.passed, t.failed, t.skipped, t.took.Seconds())
	return t
}

// locked is a writer that others write to as well.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
