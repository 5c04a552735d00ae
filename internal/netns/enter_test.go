package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownPath is the namespace that may be entered without privilege.
const ownPath = "/proc/self/ns/net"

// Work never runs on the main thread, and its thread ends with it.
func TestDoThread(t *testing.T) {
	const many = 50
	var mu sync.Mutex
	used := make(map[int]bool)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			err := Do(ownPath, func() error {
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
	if len(used) == 0 || used[unix.Getpid()] {
		t.Errorf("ran on threads %v, the main one is %d", used, unix.Getpid())
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
	if err := Do(ownPath, func() error { return want }); err != want {
		t.Errorf("error %v, want %v", err, want)
	}
	err := Do(ownPath, func() error {
		runtime.Goexit()
		return nil
	})
	if !errors.Is(err, errGoexit) {
		t.Errorf("error %v after Goexit", err)
	}
	not := func() error {
		t.Error("ran")
		return nil
	}
	if err := Do("/proc/self/ns/none", not); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/proc/self/ns/none") {
		t.Errorf("no such file: %v", err)
	}
	if err := Do("/dev/null", not); err == nil {
		t.Error("entered a file that is no namespace")
	}
	if err := (Namespace{Inode: 1, Path: ownPath}).Do(not); !errors.Is(err, errMoved) {
		t.Errorf("another namespace at its path: %v", err)
	}
}
