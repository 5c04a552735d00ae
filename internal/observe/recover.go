package observe

import (
	"errors"
	"fmt"
	"os"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// RecoverDropMonitor stops a drop monitor (NET_DM) that a killed tool left
// running and that nobody listens to. It says what it did, also if that was
// nothing. Where somebody listens it refuses, and the error names who; where
// the monitor cannot be asked the error is *UnavailableError.
func RecoverDropMonitor() (what string, err error) {
	what, err = dropmon.Recover()
	if err == nil || errors.Is(err, dropmon.ErrInUse) {
		return what, wrapRecover(err)
	}
	u := &UnavailableError{Cannot: "recover the drop monitor", Missing: err.Error(), Err: err}
	if errors.Is(err, os.ErrPermission) {
		u.Fix = "run it as root"
	}
	return what, u
}

func wrapRecover(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("recover the drop monitor: %w", err)
}
