package dropmon

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
)

// LoadModule has the kernel load its module drop_monitor, if it is not there:
// the kernel does so when somebody asks for the family by its name, with any
// rights (ctrl_getfamily of net/netlink/genetlink.c). Errors are those of Dial.
func LoadModule() error {
	host := kernel.Host{}
	if host.InitialNetNS().State == kernel.StateNo {
		return noFamily(host)
	}
	link, err := dialNetlink()
	if err != nil {
		return err
	}
	defer link.Close()
	_, err = genetlink.NewConn(link).Execute(genetlink.Message{
		Header: genetlink.Header{Command: unix.CTRL_CMD_GETFAMILY, Version: 1},
		Data:   appendAttribute(nil, unix.CTRL_ATTR_FAMILY_NAME, []byte(family+"\x00")...),
	}, unix.GENL_ID_CTRL, netlink.Request)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("load module drop_monitor: asked for it, the kernel did not: %w", noFamily(host))
	case err != nil:
		return fmt.Errorf("load module drop_monitor: %w", err)
	}
	return nil
}

// Recover stops a monitor that a killed tool left running and to which nobody
// listens, and sets back the configuration if whydrop left it. It says what it
// did, also if that was nothing. The error is ErrInUse, with the processes' names,
// if somebody listens; else as those of Open.
func Recover() (what string, err error) { return recoverMonitor(noteDir) }

func recoverMonitor(dir string) (what string, err error) {
	c, err := Dial(0)
	if errors.Is(err, ErrNoFamily) {
		return "nothing was left running: " + err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	running, err := c.Running()
	if err != nil {
		return "", err
	}
	b, pid, err := openBook(dir, false)
	switch {
	case errors.Is(err, errHeld):
		return "", fmt.Errorf("%w: %s", ErrInUse, otherWhydrop(pid))
	case errors.Is(err, fs.ErrNotExist):
		return stopLeft(c, running, nil)
	case err != nil:
		return "", err
	}
	if what, err = stopLeft(c, running, b.left); err != nil {
		return what, errors.Join(err, b.keep())
	}
	return what, b.remove()
}

// stopLeft stops the monitor that was left running, by a whydrop if left is not
// nil.
func stopLeft(c *Conn, running bool, left *note) (what string, err error) {
	if running {
		others, err := listeners(c.inode)
		if err != nil {
			return "", err
		}
		if len(others) > 0 {
			return "", fmt.Errorf("%w: %s listens to it; end that first", ErrInUse, describe(others))
		}
	}
	if left != nil {
		what, err = putBack(c, *left, running)
		if err != nil {
			return what, err
		}
		if running, err = c.Running(); err != nil {
			return what, err
		}
	}
	switch {
	case running:
		if err := stopAll(c); err != nil {
			return what, err
		}
		const other = "stopped the drop monitor, which was left running and which nobody listened to"
		if left != nil { // what ran may have been in the way of it
			if _, err := restore(c, left.Before, left.Set); err != nil {
				return other, err
			}
		}
		config, err := c.Config()
		if err != nil {
			return other, err
		}
		if what != "" {
			return what + "; and " + other, nil
		}
		return fmt.Sprintf("%s; its configuration stays as it was left (%s)", other, config), nil
	case what == "":
		return "nothing was left running: the drop monitor does not run", nil
	}
	return what, nil
}

// stopAll stops software and hardware, and looks whether that helped.
func stopAll(c *Conn) error {
	if err := c.Stop(true, true); err != nil {
		return err
	}
	running, err := c.Running()
	if err == nil && running {
		err = fmt.Errorf("stop drop monitor: %w, also after it was stopped: somebody starts it", ErrRunning)
	}
	return err
}

// putBack stops what a killed whydrop left running and sets the configuration
// back. It says what it did, and nothing if there was nothing to do.
func putBack(c *Conn, left note, running bool) (what string, err error) {
	who := fmt.Sprintf("a whydrop that was killed (pid %d, started %s)", left.PID, left.Started.Format(time.DateTime))
	if running {
		if err := c.Stop(left.Software, left.Hardware); err != nil {
			return "", err
		}
		what = "stopped the drop monitor that " + who + " had left running"
	}
	done, err := restore(c, left.Before, left.Set)
	if errors.Is(err, ErrBusy) {
		return what, nil // another's goes on
	}
	if err != nil {
		return what, err
	}
	if done && what == "" {
		return fmt.Sprintf("set back the configuration of the drop monitor that %s had changed (%s)", who, left.Before), nil
	}
	if done {
		what += fmt.Sprintf(", and set back its configuration (%s)", left.Before)
	}
	return what, nil
}
