package netns

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A namespace without a name of its own is called after the container, pod or
// unit of its first process, as the process's control group tells: docker/ID,
// pod/UID, unit/NAME.service. No name under /run/netns has a slash in it, so
// the two are never taken for one another.

const (
	// idDigits are shown of a container's 64, as docker ps does; uidDigits of
	// a pod's UID, its first group.
	idDigits, uidDigits = 12, 8
	// maxGroupName bounds a name. Control groups are named by their owners, in
	// up to 255 bytes.
	maxGroupName = 64
	// maxCgroup bounds what is read of a file: 13 hierarchies at most, of
	// which each path has up to PATH_MAX bytes (proc_cgroup_show of
	// kernel/cgroup/cgroup.c).
	maxCgroup = 64 << 10
)

// groupOf is the name that the control group of a process gives, or empty.
func groupOf(proc string, pid int) string {
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return ""
	}
	// It is only read: closing can lose nothing.
	defer func() { _ = f.Close() }()
	text := make([]byte, 0, 1<<10)
	for len(text) < maxCgroup {
		if len(text) == cap(text) {
			text = append(text, make([]byte, len(text))...)[:len(text)]
		}
		n, err := f.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err != nil || n == 0 {
			break
		}
	}
	return groupName(string(text))
}

// groupName finds the container, pod or unit in the text of /proc/PID/cgroup,
// lines of HIERARCHY:CONTROLLERS:PATH. A container says more than a unit, and
// of several the innermost is the one that has the namespace; a pod has one for
// all of its containers.
func groupName(text string) string {
	unit := ""
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		_, path, found := strings.Cut(rest, ":")
		if !found {
			continue
		}
		parts := strings.Split(strings.TrimSuffix(path, " (deleted)"), "/")
		if name := containerIn(parts); name != "" {
			return bounded(name)
		}
		if unit == "" {
			unit = unitIn(parts)
		}
	}
	return bounded(unit)
}

// bounded makes a name one that fits into a line and into JSON.
func bounded(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxGroupName)], "?")
}

// containerIn looks for a container in a path, from its end.
func containerIn(parts []string) string {
	for i := len(parts) - 1; i >= 0; i-- {
		above := ""
		if i > 0 {
			above = parts[i-1]
		}
		if pod := podIn(parts[i]); pod != "" {
			return pod
		}
		name := containerOf(parts[i], above)
		if name == "" {
			continue
		}
		if pod := podIn(above); pod != "" {
			return pod
		}
		return name
	}
	return ""
}

// podIn reads a UID of Kubernetes: podUID below kubepods with cgroupfs,
// kubepods-burstable-podUID.slice with systemd, where _ stands for -. That of
// a static pod is a hash without dashes.
func podIn(part string) string {
	s, slice := strings.CutSuffix(part, ".slice")
	if slice {
		i := strings.LastIndex(s, "-pod")
		if i < 0 || !strings.HasPrefix(s, "kubepods") {
			return ""
		}
		s = s[i+1:]
	}
	uid, ok := strings.CutPrefix(s, "pod")
	if !ok {
		return ""
	}
	digits := strings.NewReplacer("-", "", "_", "").Replace(uid)
	if len(digits) != 32 || !isHex(digits) {
		return ""
	}
	return "pod/" + digits[:uidDigits]
}

// containerOf reads one part of a path, and what is above it: ENGINE-ID.scope
// where systemd makes the groups, ENGINE/ID where the engine does; lxc and
// systemd-nspawn have names.
func containerOf(part, above string) string {
	s := strings.TrimSuffix(part, ".scope")
	engine, id := above, s
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		engine, id = s[:i], s[i+1:]
	}
	if len(id) == 64 && isHex(id) {
		if !isWord(engine) {
			engine = "container"
		}
		return engine + "/" + id[:idDigits]
	}
	if name, ok := strings.CutPrefix(part, "lxc.payload."); ok && name != "" {
		return "lxc/" + name
	}
	if above == "lxc" && part != "" {
		return "lxc/" + part
	}
	if name, ok := strings.CutPrefix(s, "machine-"); ok && name != "" && s != part {
		return "machine/" + name
	}
	if name, ok := strings.CutPrefix(part, "systemd-nspawn@"); ok {
		if name, ok = strings.CutSuffix(name, ".service"); ok && name != "" {
			return "machine/" + name
		}
	}
	return ""
}

// unitIn looks for a unit of systemd in a path, from its end. Sessions and the
// managers of users are none that say anything about a namespace.
func unitIn(parts []string) string {
	for i := len(parts) - 1; i >= 0; i-- {
		s := parts[i]
		service := strings.HasSuffix(s, ".service") && !strings.HasPrefix(s, "user@")
		scope := strings.HasSuffix(s, ".scope") && !strings.HasPrefix(s, "session-") && s != "init.scope"
		if service || scope {
			return "unit/" + s
		}
	}
	return ""
}

func isHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// isWord says whether s can be the name of an engine.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}
