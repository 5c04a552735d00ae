package dropmon

import (
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
)

// Errors that say why the monitor cannot be used. They come wrapped, with the
// cause and what would change it. A lack of rights is os.ErrPermission.
var (
	// ErrNoFamily: the kernel has no drop monitor, or its module is not loaded.
	ErrNoFamily = errors.New("the kernel offers no drop monitor (NET_DM)")
	// ErrNotInitialNetNS: this is another network namespace than the first. The
	// family is not netnsok, so it is neither listed nor asked there
	// (net/netlink/genetlink.c).
	ErrNotInitialNetNS = errors.New("the drop monitor (NET_DM) is in the initial network namespace only")
	// ErrRunning: the monitor runs already (EAGAIN).
	ErrRunning = errors.New("the drop monitor runs already")
	// ErrBusy: it cannot be configured while it runs (EBUSY).
	ErrBusy = errors.New("the drop monitor cannot be configured while it runs")
	// ErrInUse: somebody listens to it, so that it may not be stopped.
	ErrInUse = errors.New("the drop monitor is in use")
)

// noFamily says why the kernel does not list the family.
func noFamily(host kernel.Host) error {
	if a := host.InitialNetNS(); a.State == kernel.StateNo {
		return fmt.Errorf("%w, and this is another: %s", ErrNotInitialNetNS, a.Fix)
	}
	a := host.MissingNetDM()
	switch a.State {
	case kernel.StateNo:
		return fmt.Errorf("%w: %s; it needs: %s", ErrNoFamily, a.Why, a.Fix)
	case kernel.StateYes:
		return fmt.Errorf("%w, although %s", ErrNoFamily, a.Detail)
	}
	return fmt.Errorf("%w: %s", ErrNoFamily, a.Why)
}

// refusal turns the kernel's answer to a command into an error of this package.
// GENL_ADMIN_PERM asks for CAP_NET_ADMIN in the initial user namespace.
func refusal(what string, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		err = fmt.Errorf("%w%s", ErrRunning, hint(err))
	case errors.Is(err, unix.EBUSY):
		err = fmt.Errorf("%w%s", ErrBusy, hint(err))
	case errors.Is(err, os.ErrPermission):
		err = fmt.Errorf("%w: it needs CAP_NET_ADMIN of the host, not of a user namespace", err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// hint is what the kernel said beside the number of its error.
func hint(err error) string {
	var op *netlink.OpError
	if !errors.As(err, &op) || op.Message == "" {
		return ""
	}
	return " (" + op.Message + ")"
}
