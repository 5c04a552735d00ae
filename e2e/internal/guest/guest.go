// Package guest makes what runs inside of a machine: an initramfs with the
// kernel's modules for networks, whose init runs jobs one after the other, and
// the other end of the line over which it tells about them.
//
// It must not start machines nor judge what a job printed.
package guest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/e2e/internal/image"
)

// modules are in the image with all that they depend on, for the kernel to
// load by itself when it needs one, as it does on a real host.
var modules = []string{
	"veth", "macvlan", "dummy", "tun", "8021q", "vrf", "ifb", "vxlan", "geneve", "ipvlan", "bonding", "bridge", "br_netfilter",
	"drop_monitor", "ip_gre", "sit", "ipip", "openvswitch", "mpls_*",
	"sch_*", "cls_*", "act_*", "em_*", "xfrm_*", "esp4", "ah4",
	"nf_*", "nft_*", "nfnetlink*", "xt_*", "ip_set*", "ip_tables", "iptable_*", "ipt_*", "ip6_tables", "ip6table_*", "ip6t_*",
	"tcp_*", "sctp", "af_packet", "*_diag", "virtio_net",
}

// newer are modules that are in the image where the kernel's package has them:
// Debian 11's for clouds has no tls.
var newer = []string{"tls"}

// tools are busybox, which init needs, and the programs that tests call.
var tools = []string{
	"busybox", "sh", "mount", "umount", "unshare", "nsenter", "sysctl", "setpriv", "script",
	"ip", "tc", "bridge", "ss", "nstat", "lnstat", "nft", "bpftool", "ethtool", "conntrack", "dropwatch", "dwdump",
	"iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore", "iptables-nft", "iptables-nft-save",
	"ip6tables-legacy", "ip6tables-legacy-save", "ip6tables-legacy-restore",
}

// plugins are the libraries that iptables opens by name, where it was built to
// look for them.
const plugins = "/usr/lib/*/xtables/lib*.so"

//go:embed init.sh
var initScript string

// Job is a program that runs in the machine.
type Job struct {
	Name string
	Dir  string // in the machine
	Args []string
	// Processors has all of the machine's on for this job, else the first alone
	// works: an emulator spends much on what processors tell each other.
	Processors bool
}

// Files are files for the machine: the path there, and the path here.
type Files map[string]string

// Build writes the image of a machine to path. The directory of modules has
// the name of the kernel's release; builtin is its modules.builtin.
func Build(ctx context.Context, path, moduleDir, builtin string, files Files, jobs []Job) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := image.NewWriter(f)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/root", "/run", "/etc"} {
		w.Dir(dir, 0o755)
	}
	w.Dir("/tmp", 0o1777)
	w.File("/init", 0o755, []byte(initScript))
	w.File("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	w.File("/jobs", 0o644, script(jobs))

	all, err := userland(ctx)
	if err != nil {
		return err
	}
	maps.Copy(all, files)
	for to, from := range all {
		if err := add(w, to, from); err != nil {
			return fmt.Errorf("make image: %w", err)
		}
	}
	found, err := image.FindModules(moduleDir, builtin)
	if err != nil {
		return err
	}
	wanted := slices.Clone(modules)
	for _, m := range newer {
		if found.Has(m) {
			wanted = append(wanted, m)
		}
	}
	order, err := found.Load(wanted)
	if err != nil {
		return err
	}
	dir := "/lib/modules/" + filepath.Base(moduleDir) + "/"
	for _, m := range order {
		w.File(dir+m.Name+".ko", 0o644, m.Data)
	}
	if err := add(w, dir+"modules.builtin", builtin); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	dep, alias := image.Index(order)
	w.File(dir+"modules.dep", 0o644, []byte(dep))
	w.File(dir+"modules.alias", 0o644, []byte(alias))
	return w.Close()
}

// script calls job for each job; init.sh defines it.
func script(jobs []Job) []byte {
	var b strings.Builder
	for i, j := range jobs {
		on := 0
		if j.Processors {
			on = 1
		}
		fmt.Fprintf(&b, "job %d %d %s", i, on, quote(j.Dir))
		for _, a := range j.Args {
			b.WriteString(" " + quote(a))
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// add adds a file, or a directory with all in it.
func add(w *image.Writer, to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path) // of what a link leads to
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		w.File(filepath.Join(to, rel), uint32(info.Mode().Perm()), data)
		return err
	})
}

// library finds the paths in the output of ldd.
var library = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// userland is busybox and the tools, with the libraries that they need. The
// tools come before /bin in init's PATH, where busybox puts its own.
func userland(ctx context.Context) (Files, error) {
	files := Files{}
	for _, tool := range tools {
		path, err := exec.LookPath(tool)
		if err != nil {
			return nil, fmt.Errorf("%w (make vm-deps installs it)", err)
		}
		dir := "/usr/bin/"
		if tool == "busybox" {
			dir = "/bin/"
		}
		files[dir+tool] = path
		// It fails on static programs, and says so.
		out, err := exec.CommandContext(ctx, "ldd", path).CombinedOutput()
		if err != nil && !bytes.Contains(out, []byte("not a dynamic executable")) {
			return nil, fmt.Errorf("libraries of %s: %w\n%s", path, err, out)
		}
		for _, m := range library.FindAllStringSubmatch(string(out), -1) {
			files[m[1]] = m[1]
		}
	}
	found, err := filepath.Glob(plugins)
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no %s: %w (make vm-deps installs iptables)", plugins, errors.Join(err, fs.ErrNotExist))
	}
	for _, path := range found {
		files[path] = path
	}
	return files, nil
}

// mark begins the lines of init itself.
const mark = "@@ vmtest "

// Line is what one line from init means.
type Line struct {
	// Kind is up, begin, end, off or error; empty for a job's output.
	Kind string
	// Job is the number of a job that begins or ends.
	Job int
	// Code is the exit status of a job that ended.
	Code int
	// Text is the line, or what is wrong.
	Text string
}

// Parse reads a line that came from a machine.
func Parse(s string) Line {
	rest, ours := strings.CutPrefix(s, mark)
	f := strings.Fields(rest)
	if !ours || len(f) == 0 {
		return Line{Text: s}
	}
	l := Line{Kind: f[0], Text: strings.Join(f[1:], " ")}
	for i, n := range []*int{&l.Job, &l.Code} {
		if (l.Kind == "begin" || l.Kind == "end") && len(f) > i+1 {
			v, err := strconv.Atoi(f[i+1])
			if err != nil {
				return Line{Text: s}
			}
			*n = v
		}
	}
	return l
}
