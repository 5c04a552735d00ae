package dropmon

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
)

const (
	family = "NET_DM"
	// group is the number of the family's only multicast group. It is fixed
	// (genl_validate_assign_mc_groups of net/netlink/genetlink.c).
	group = 1
	// defaultBuffer is the default size of the socket's buffer, in bytes. An
	// alert of a packet that is cut to 128 bytes takes about one kilobyte.
	defaultBuffer = 4 << 20
	// largest is more than any alert: a packet's bytes are in one attribute.
	largest = 128 << 10
)

// Conn is a connection to the drop monitor: a socket for commands, and one for
// alerts, so that neither is taken for the other. It starts, stops and sets what
// it is told to, whoever else uses the monitor; Monitor has the manners.
//
// Receive and ReceiveRaw must not be called at the same time; everything else
// may be.
type Conn struct {
	link     *netlink.Conn
	commands *genetlink.Conn
	alerts   *netlink.Conn
	raw      syscall.RawConn // of alerts
	inode    uint64          // of alerts
	id       uint16          // of the family
	version  uint8
	buffer   []byte

	unusable atomic.Uint64
	closed   atomic.Bool
	losses   losses
}

// losses counts the messages that the socket had no room for.
type losses struct {
	sync.Mutex
	overruns uint64 // times that the kernel said so
	drops    uint64 // messages, as far as the kernel counts them
	last     uint32 // the kernel's count, which has 32 bits
}

// Dial opens the sockets, with a buffer for alerts of so many bytes; 0 is a
// default. It never loads the module: it looks for the family in the list of all
// families, where asking for one by its name would have it loaded
// (ctrl_getfamily of net/netlink/genetlink.c). Errors are ErrNotInitialNetNS and
// ErrNoFamily.
func Dial(receiveBuffer int) (_ *Conn, err error) {
	c := &Conn{buffer: make([]byte, largest)}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.link, err = dialNetlink(); err != nil {
		return nil, err
	}
	c.commands = genetlink.NewConn(c.link)
	families, err := c.commands.ListFamilies()
	if err != nil {
		return nil, fmt.Errorf("list families of generic netlink: %w", err)
	}
	for _, f := range families {
		if f.Name == family {
			c.id, c.version = f.ID, f.Version
		}
	}
	if c.id == 0 {
		return nil, noFamily(kernel.Host{})
	}
	return c, c.openAlerts(receiveBuffer)
}

func dialNetlink() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, fmt.Errorf("open socket of generic netlink: %w", err)
	}
	// The kernel then says in words why it refuses.
	if err := c.SetOption(netlink.ExtendedAcknowledge, true); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		c.Close()
		return nil, fmt.Errorf("set option of generic netlink socket: %w", err)
	}
	return c, nil
}

func (c *Conn) openAlerts(receiveBuffer int) (err error) {
	if c.alerts, err = netlink.Dial(unix.NETLINK_GENERIC, nil); err != nil {
		return fmt.Errorf("open socket for alerts: %w", err)
	}
	if c.raw, err = c.alerts.SyscallConn(); err != nil {
		return fmt.Errorf("open socket for alerts: %w", err)
	}
	if c.inode, err = inodeOf(c.raw); err != nil {
		return err
	}
	if receiveBuffer <= 0 {
		receiveBuffer = defaultBuffer
	}
	// Beyond net.core.rmem_max with CAP_NET_ADMIN, else up to it.
	if err := c.alerts.SetReadBuffer(receiveBuffer); err != nil {
		return fmt.Errorf("size buffer for alerts: %w", err)
	}
	return nil
}

// inodeOf is the number by which /proc knows a socket.
func inodeOf(socket syscall.RawConn) (uint64, error) {
	var st unix.Stat_t
	var err error
	cerr := socket.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
	if err = errors.Join(cerr, err); err != nil {
		return 0, fmt.Errorf("stat socket of generic netlink: %w", err)
	}
	return st.Ino, nil
}

// Config asks for the configuration. It needs no rights.
func (c *Conn) Config() (Config, error) {
	b, err := c.ask(CommandConfigGet)
	if err != nil {
		return Config{}, refusal("get configuration of drop monitor", err)
	}
	return decodeConfig(b)
}

// Stats asks for the counts of packets that packet mode lost. It needs no
// rights.
func (c *Conn) Stats() (Stats, error) {
	b, err := c.ask(CommandStatsGet)
	if err != nil {
		return Stats{}, refusal("get statistics of drop monitor", err)
	}
	return decodeStats(b)
}

// SetConfig sets the configuration, which is the host's and stays until it is
// set again. While the monitor runs the error is ErrBusy.
func (c *Conn) SetConfig(config Config) error {
	return refusal("configure drop monitor", c.tell(CommandConfig, config.encode()))
}

// Start starts the monitor. If one of what is asked for runs already the error
// is ErrRunning, and none is started. Join before, so as to miss nothing.
func (c *Conn) Start(software, hardware bool) error {
	if !software && !hardware {
		return errNothing // the kernel would start software
	}
	return refusal("start drop monitor", c.tell(CommandStart, encodeOrigins(software, hardware)))
}

// Stop stops the monitor for everybody. It is no error if it did not run (since
// Linux 5.4). The drops of the last second of summary mode go with it.
func (c *Conn) Stop(software, hardware bool) error {
	if !software && !hardware {
		return errNothing
	}
	return refusal("stop drop monitor", c.tell(CommandStop, encodeOrigins(software, hardware)))
}

var errNothing = errors.New("drop monitor: neither software nor hardware drops are asked for")

// Running says whether anybody's monitor runs: a configuration that sets nothing
// is refused only then (net_dm_cmd_config, net/core/drop_monitor.c).
func (c *Conn) Running() (bool, error) {
	return runs(c.tell(CommandConfig, nil))
}

// runs reads the kernel's answer to a configuration that sets nothing.
func runs(err error) (bool, error) {
	const what = "ask whether drop monitor runs"
	switch {
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP): // net_dm_cmd_config before 5.4
		return false, fmt.Errorf("%s: the drop monitor of this kernel cannot be asked, Linux 5.4 or newer can: %w", what, err)
	}
	return false, refusal(what, err)
}

// tell sends a command that the kernel only says yes or no to.
func (c *Conn) tell(command uint8, attributes []byte) error {
	_, err := c.execute(command, attributes, netlink.Request|netlink.Acknowledge)
	return err
}

// ask sends a command that the kernel answers with one message.
func (c *Conn) ask(command uint8) ([]byte, error) {
	answers, err := c.execute(command, nil, netlink.Request)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, fmt.Errorf("%d answers", len(answers))
	}
	return answers[0].MarshalBinary()
}

func (c *Conn) execute(command uint8, attributes []byte, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	return c.commands.Execute(genetlink.Message{
		Header: genetlink.Header{Command: command, Version: c.version},
		Data:   attributes,
	}, c.id, flags)
}

// Join asks for alerts: it joins the group.
func (c *Conn) Join() error {
	err := c.alerts.JoinGroup(group)
	if errors.Is(err, os.ErrPermission) {
		// GENL_MCAST_CAP_SYS_ADMIN, Linux 6.7 and stable releases of its time.
		err = fmt.Errorf("%w: it needs CAP_SYS_ADMIN", err)
	}
	if err != nil {
		return fmt.Errorf("join group of drop monitor: %w", err)
	}
	return nil
}

// SetReadDeadline sets when Receive and ReceiveRaw end; the zero time is never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.alerts.SetReadDeadline(t) }

// Receive hands every alert to f until the read deadline, and then returns
// os.ErrDeadlineExceeded; after Close it returns os.ErrClosed. Messages that the
// socket had no room for are counted in Lost, those that are no alert in
// Unusable. The alert is the caller's. Another goroutine, or f, ends it early
// with SetReadDeadline(time.Now()).
func (c *Conn) Receive(f func(Alert)) error {
	return c.ReceiveRaw(func(message []byte) error {
		alert, err := Decode(message[unix.SizeofNlMsghdr:])
		if err != nil {
			c.unusable.Add(1)
			return nil
		}
		f(alert)
		return nil
	})
}

// ReceiveRaw is Receive for whole messages of netlink, header included; message
// is valid until f returns. An error of f ends it and is returned.
func (c *Conn) ReceiveRaw(f func(message []byte) error) error {
	for {
		datagram, err := c.read()
		if err != nil {
			return err
		}
		var ferr error
		err = splitMessages(datagram, func(kind uint16, message []byte) error {
			if kind != c.id {
				c.unusable.Add(1)
				return nil
			}
			ferr = f(message)
			return ferr
		})
		switch {
		case ferr != nil:
			return ferr
		case err != nil:
			c.unusable.Add(1)
		}
	}
}

// read reads a datagram into the buffer, whose end it counts.
func (c *Conn) read() ([]byte, error) {
	for {
		var n int
		var from unix.Sockaddr
		var err error
		rerr := c.raw.Read(func(fd uintptr) bool {
			// With MSG_TRUNC it says how long a datagram is that does not fit.
			n, from, err = unix.Recvfrom(int(fd), c.buffer, unix.MSG_TRUNC)
			return !errors.Is(err, unix.EAGAIN)
		})
		if rerr != nil && c.closed.Load() {
			return nil, fmt.Errorf("receive alert: %w", os.ErrClosed)
		}
		if rerr != nil {
			return nil, fmt.Errorf("receive alert: %w", rerr)
		}
		sender, ok := from.(*unix.SockaddrNetlink)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			c.losses.overrun()
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("receive alert: %w", os.NewSyscallError("recvfrom", err))
		case !ok || sender.Pid != 0 || n > len(c.buffer):
			c.unusable.Add(1) // not from the kernel, or longer than it can be
		default:
			return c.buffer[:n], nil
		}
	}
}

// FamilyDump returns the messages, header included, with which the kernel lists
// its families of generic netlink (CTRL_CMD_GETFAMILY).
func (c *Conn) FamilyDump() ([][]byte, error) {
	request := netlink.Message{
		Header: netlink.Header{Type: unix.GENL_ID_CTRL, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, // struct genlmsghdr
	}
	messages, err := c.link.Execute(request)
	if err != nil {
		return nil, fmt.Errorf("list families of generic netlink: %w", err)
	}
	raw := make([][]byte, 0, len(messages))
	for _, m := range messages {
		b, err := m.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("list families of generic netlink: %w", err)
		}
		raw = append(raw, b)
	}
	return raw, nil
}

// Lost is how many messages the socket had no room for: alerts of single packets
// or summaries of up to 64 locations.
func (c *Conn) Lost() uint64 {
	if c.raw != nil && !c.closed.Load() {
		_ = c.raw.Control(c.losses.read) // else what was known before
	}
	return c.losses.count()
}

// Unusable is how many messages came that were no alert or a broken one.
func (c *Conn) Unusable() uint64 { return c.unusable.Load() }

// Close closes the sockets. It stops nothing, and may be called more than once.
func (c *Conn) Close() error {
	c.Lost() // the last word
	if c.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, s := range []*netlink.Conn{c.link, c.alerts} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close sockets of drop monitor: %w", err)
	}
	return nil
}

func (l *losses) overrun() {
	l.Lock()
	defer l.Unlock()
	l.overruns++
}

// count is the kernel's count where there is one, and at least the overruns.
func (l *losses) count() uint64 {
	l.Lock()
	defer l.Unlock()
	return max(l.overruns, l.drops)
}

// read asks for the socket's count of drops (sk_drops, which netlink_overrun of
// net/netlink/af_netlink.c counts up). SO_MEMINFO came with Linux 4.12.
func (l *losses) read(fd uintptr) {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size < uint32(unsafe.Sizeof(info)) {
		return
	}
	now := info[unix.SK_MEMINFO_DROPS]
	l.Lock()
	defer l.Unlock()
	l.drops += uint64(now - l.last)
	l.last = now
}
