// Package thread runs work on OS threads of its own. It knows nothing of what
// the work does to the thread.
package thread

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrGoexit is what Do returns when fn ended its goroutine, as
// testing.T.FailNow does.
var ErrGoexit = errors.New("goroutine ended inside the network namespace")

// Do runs fn on an OS thread that ends with it, and returns its error, so that no
// other goroutine ever runs in the namespace that fn moved the thread to.
//
// The main thread cannot end, and it is the one that /proc/self/ns/net and
// /proc/net speak of. It is kept aside while another thread does the work.
func Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() { done <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			err = Do(fn)
			return
		}
		// Locked to the end: the runtime ends the thread with the goroutine.
		err = fn()
	}()
	return <-done
}
