package kernel

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NetDM answers whether the kernel has its drop monitor (NET_DM) now, and if not
// why and what would bring it. It loads nothing.
func (h Host) NetDM() Answer { return (&checker{host: h}).netDM() }

// InitialNetNS answers whether the calling thread is in the initial network
// namespace, where alone the drop monitor can be asked.
func (h Host) InitialNetNS() Answer { return (&checker{host: h}).netns() }

// MissingNetDM answers why the drop monitor is not there, where generic netlink
// does not list it. Other than NetDM it does not look for it in /proc/kallsyms: what
// is built in is listed.
func (h Host) MissingNetDM() Answer {
	c := &checker{host: h}
	if a, known := c.netDMModule(); known {
		return a
	}
	return c.withoutNetDM()
}

// netDM asks for the drop monitor without asking generic netlink, which would
// load its module (genl_family_find_byname with CONFIG_MODULES,
// net/netlink/genetlink.c).
func (c *checker) netDM() Answer {
	// The list of modules first: the one of functions is long.
	if a, known := c.netDMModule(); known {
		return a
	}
	builtIn, err := c.host.hasFunction("net_dm_cmd_trace")
	if err != nil {
		return unknown(err)
	}
	if builtIn {
		return yes("built into the kernel")
	}
	return c.withoutNetDM()
}

// netDMModule looks for the module drop_monitor; known is false where there is
// none.
func (c *checker) netDMModule() (a Answer, known bool) {
	loaded, err := c.host.modules()
	if errors.Is(err, fs.ErrNotExist) {
		return Answer{}, false
	}
	if err != nil {
		return unknown(err), true
	}
	if _, ok := loaded["drop_monitor"]; ok {
		return yes("module drop_monitor is loaded"), true
	}
	if file, err := c.host.moduleFile("drop_monitor"); err == nil && file != "" {
		return no("module drop_monitor is not loaded", "modprobe drop_monitor").see(file), true
	}
	return Answer{}, false
}

// withoutNetDM says why a kernel that has neither the module nor the monitor
// built in has not.
func (c *checker) withoutNetDM() Answer {
	const missing = "the kernel was built without CONFIG_NET_DROP_MONITOR"
	if _, err := c.host.modules(); errors.Is(err, fs.ErrNotExist) {
		return no(missing+", and has no modules", "a kernel built with CONFIG_NET_DROP_MONITOR")
	}
	if _, err := c.host.moduleFile("drop_monitor"); err != nil {
		return unknown(err)
	}
	value, source, err := c.host.config("CONFIG_NET_DROP_MONITOR")
	switch {
	case err != nil:
		return no("module drop_monitor is not installed", "install the kernel's package of extra modules, or a kernel built with CONFIG_NET_DROP_MONITOR").see(err.Error())
	case value == "":
		return no(missing, "a kernel built with CONFIG_NET_DROP_MONITOR").see(source)
	}
	return no("module drop_monitor is not installed", "install the kernel's package of extra modules").see(source)
}

// hasFunction looks for a function of the kernel itself by name in
// /proc/kallsyms. Names are there even where addresses are hidden.
func (h Host) hasFunction(name string) (bool, error) {
	f, err := os.Open(h.path("/proc/kallsyms"))
	if err != nil {
		return false, fmt.Errorf("look for function %s: %w", name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	// A module's symbol has [module] behind the name.
	end := []byte(" " + name)
	for lines.Scan() {
		if bytes.HasSuffix(lines.Bytes(), end) {
			return true, nil
		}
		if bytes.HasSuffix(lines.Bytes(), []byte(" _etext")) {
			return false, nil // the table is in the order of addresses, and data follows
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("look for function %s: %w", name, err)
	}
	return false, nil
}

// moduleFile returns the path of a module of the running kernel that could be
// loaded, and "" if there is none. An error means that nobody knows, because
// the kernel's modules are not here (in a container).
func (h Host) moduleFile(name string) (string, error) {
	release, err := h.Release()
	if err != nil {
		return "", err
	}
	dir := h.path("/lib/modules/" + release)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("look for module %s: %w", name, err)
	}
	// modules.dep lists every module, compressed or not, and where it lies:
	// kernel/net/core/drop_monitor.ko.xz: …
	list, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for module %s: %w", name, err)
	}
	for line := range strings.Lines(string(list)) {
		file, _, _ := strings.Cut(line, ":")
		if strings.HasPrefix(filepath.Base(file), name+".ko") {
			return filepath.Join(dir, file), nil
		}
	}
	// depmod may not have run.
	files, err := filepath.Glob(filepath.Join(dir, "kernel/net/core", name+".ko*"))
	if err != nil || len(files) == 0 {
		return "", err
	}
	return files[0], nil
}

// config returns the value of an option of the running kernel's configuration
// (y, m or a value; "" if it is not set), and the file that says so.
func (h Host) config(option string) (value, source string, err error) {
	release, err := h.Release()
	if err != nil {
		return "", "", err
	}
	for _, name := range []string{
		"/proc/config.gz",
		"/boot/config-" + release,
		"/lib/modules/" + release + "/config",
	} {
		value, err := h.readOption(name, option)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return value, name, err
	}
	return "", "", errors.New("the kernel's configuration is neither in /proc/config.gz nor in /boot")
}

func (h Host) readOption(name, option string) (string, error) {
	f, err := os.Open(h.path(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	var text io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if text, err = gzip.NewReader(f); err != nil {
			return "", fmt.Errorf("read %s: %w", name, err)
		}
	}
	value, err := findOption(text, option)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return value, nil
}

// findOption reads a kernel's configuration: lines OPTION=value.
func findOption(text io.Reader, option string) (string, error) {
	// A configuration has 200 kB; the limit is for what only pretends.
	lines := bufio.NewScanner(io.LimitReader(text, 4<<20))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), option+"="); ok {
			return strings.Trim(value, `"`), nil
		}
	}
	return "", lines.Err()
}
