// Package guest makes what runs inside of a machine: an initramfs whose init
// loads modules and then runs jobs one after the other, and the other end of
// the line over which it tells about them.
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
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/e2e/internal/image"
)

// modules are loaded in every machine: nothing loads one by itself there.
var modules = []string{
	"veth", "macvlan", "dummy", "tun", "8021q", "drop_monitor",
	"nf_tables", "nft_counter?", "nft_ct", "nft_reject_ipv4", // counters are in nf_tables since 5.18
	"sch_fq", "sch_tbf", "sch_netem", "sch_ingress", "act_gact", "cls_matchall",
}

// tools are busybox, which init needs, and the programs that tests call.
var tools = []string{"busybox", "sh", "mount", "umount", "unshare", "setpriv", "script"}

//go:embed init.sh
var initScript string

// Job is a program that runs in the machine.
type Job struct {
	Name string
	Dir  string // in the machine
	Args []string
}

// Files are files for the machine: the path there, and the path here.
type Files map[string]string

// Build writes the image of a machine to path.
func Build(ctx context.Context, path, moduleDir string, files Files, jobs []Job) (err error) {
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
	found, err := image.FindModules(moduleDir)
	if err != nil {
		return err
	}
	order, err := found.Load(modules)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, m := range order {
		w.File("/modules/"+m.Name+".ko", 0o644, m.Data)
		fmt.Fprintln(&list, m.Name)
	}
	w.File("/modules/order", 0o644, []byte(list.String()))
	return w.Close()
}

// script calls job for each job; init.sh defines it.
func script(jobs []Job) []byte {
	var b strings.Builder
	for i, j := range jobs {
		fmt.Fprintf(&b, "job %d %s", i, quote(j.Dir))
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
			return nil, fmt.Errorf("%w (apt-get install busybox-static bsdutils util-linux)", err)
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
