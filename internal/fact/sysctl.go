package fact

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// secrets are settings that must not get into a record: net/ipv4 and
// net/ipv6 keep keys there.
var secrets = []string{"tcp_fastopen_key", "stable_secret"}

// everySetting at the end of a name asks for all settings of a directory.
const everySetting = "/*"

// maxSettings is how many settings of a directory are given.
const maxSettings = 256

// checkSysctl accepts a name in the form net/ipv4/ip_forward, or a directory
// and /*.
func checkSysctl(name string) error {
	name = strings.TrimSuffix(name, everySetting)
	top, _, below := strings.Cut(name, "/")
	switch {
	case !fs.ValidPath(name) || strings.ContainsAny(name, "\x00\n*"):
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
	if dir, ok := strings.CutSuffix(q.arg, everySetting); ok {
		return q.settings(dir)
	}
	q.fileOf(q.arg)
	var text string
	read := func() (err error) {
		text, err = q.readFile("/proc/sys/" + q.arg)
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
	q.addSetting(q.arg, text)
	return nil
}

// fileOf sets the source and the command of a setting.
func (q *query) fileOf(name string) {
	q.source = "/proc/sys/" + name
	// sysctl(8) swaps dots and slashes: net.ipv4.conf.eth0/100.rp_filter.
	q.command = "sysctl " + shell(strings.NewReplacer("/", ".", ".", "/").Replace(name))
}

// addSetting adds a setting that was read in the namespace of the thread.
func (q *query) addSetting(name, text string) {
	value := strings.Join(strings.Fields(text), " ")
	var f fields
	if !q.hostWide {
		combined := fields{}
		effective(name, value, func(name string) (string, error) { return q.readFile("/proc/sys/" + name) }, combined)
		if len(combined) > 0 {
			f = combined
		}
	}
	q.add(name, value, f)
}

// settings adds all settings of a directory, without those below it, as they
// are in this namespace. What may only be written is left out.
func (q *query) settings(dir string) error {
	q.fileOf(dir)
	q.hostWide = !strings.HasPrefix(dir, "net/")
	entries, err := os.ReadDir(q.path("/proc/sys/" + dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	left := 0
	var unread []string
	for _, e := range entries {
		name := dir + "/" + e.Name()
		info, err := e.Info()
		if err != nil || e.IsDir() || info.Mode()&0o444 == 0 || checkSysctl(name) != nil {
			continue
		}
		if len(q.facts) == maxSettings {
			left++
			continue
		}
		q.fileOf(name)
		text, err := q.readFile("/proc/sys/" + name)
		if err != nil {
			unread = append(unread, err.Error())
			continue
		}
		q.addSetting(name, text)
	}
	q.fileOf(dir)
	q.left(left, "settings")
	if len(unread) > 0 {
		q.missing(strings.Join(unread, "; "))
	}
	return nil
}

// perDevice says whether a setting is that of a device, as in
// net/ipv4/conf/eth0/rp_filter. A device of that name on the host is another.
func perDevice(name string) bool {
	part := strings.Split(name, "/")
	return len(part) > 4 && (part[2] == "conf" || part[2] == "neigh") && part[3] != "all" && part[3] != "default"
}
