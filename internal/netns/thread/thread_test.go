package thread

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Work never runs on the main thread, and its thread ends with it.
func TestDo(t *testing.T) {
	const many = 50
	var mu sync.Mutex
	used := make(map[int]bool)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			err := Do(func() error {
				mu.Lock()
				defer mu.Unlock()
				used[unix.Gettid()] = true
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if used[unix.Getpid()] {
		t.Error("ran on the main thread")
	}
	for tid := range used {
		path := fmt.Sprintf("/proc/self/task/%d", tid)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(path); err != nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("thread %d is still there", tid)
			}
		}
	}
}

func TestDoErrors(t *testing.T) {
	want := errors.New("mine")
	if err := Do(func() error { return want }); err != want {
		t.Errorf("error %v, want %v", err, want)
	}
	err := Do(func() error {
		runtime.Goexit()
		return nil
	})
	if !errors.Is(err, ErrGoexit) {
		t.Errorf("error %v after Goexit", err)
	}
}
