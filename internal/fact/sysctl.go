package fact

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// secrets are settings that must not get into a record: net/ipv4 and
// net/ipv6 keep keys there.
var secrets = []string{"tcp_fastopen_key", "stable_secret"}

// checkSysctl accepts a name in the form net/ipv4/ip_forward.
func checkSysctl(name string) error {
	top, _, below := strings.Cut(name, "/")
	switch {
	case !fs.ValidPath(name) || strings.ContainsAny(name, "\x00\n"):
		return fmt.Errorf("name %q: not of the form net/ipv4/ip_forward", name)
	case !below || !slices.Contains([]string{"net", "vm", "kernel"}, top):
		return fmt.Errorf("name %q: only settings below net/, vm/ and kernel/ are read", name)
	case slices.Contains(secrets, path.Base(name)):
		return fmt.Errorf("name %q: it holds a secret", name)
	}
	return nil
}

// readSysctl reads a setting of the namespace. A child of the initial
// namespace lacks the settings that apply to all of them, such as
// net/core/netdev_max_backlog (net_core_table of net/core/sysctl_net_core.c):
// those are read in the host's.
func readSysctl(q *query) error {
	file := "/proc/sys/" + q.arg
	q.source = file
	// sysctl(8) swaps dots and slashes: net.ipv4.conf.eth0/100.rp_filter.
	q.command = "sysctl " + shell(strings.NewReplacer("/", ".", ".", "/").Replace(q.arg))
	var text string
	read := func() (err error) {
		text, err = q.readFile(file)
		return err
	}
	err := read()
	ofNamespace := strings.HasPrefix(q.arg, "net/")
	q.hostWide = !ofNamespace
	if errors.Is(err, fs.ErrNotExist) && ofNamespace && !perDevice(q.arg) {
		if q.Host == nil {
			return fmt.Errorf("%w in this namespace, and that of the host cannot be looked into", err)
		}
		q.hostWide = true
		err = q.Host(read)
		if errors.Is(err, fs.ErrNotExist) {
			q.hostWide = false
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	q.add(q.arg, strings.Join(strings.Fields(text), " "), nil)
	return nil
}

// perDevice says whether a setting is that of a device, as in
// net/ipv4/conf/eth0/rp_filter. A device of that name on the host is another.
func perDevice(name string) bool {
	part := strings.Split(name, "/")
	return len(part) > 4 && (part[2] == "conf" || part[2] == "neigh") && part[3] != "all" && part[3] != "default"
}
