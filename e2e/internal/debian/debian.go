// Package debian brings kernels from Debian's archive into a cache, by apt
// with a state of its own and with Debian's signatures checked.
//
// It must not touch the system's apt, install a package, or fetch anything
// but packages of kernels from the mirror that the system is set to.
package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Generic behind the name of a suite asks for its kernel for all machines
// instead of the one for clouds, which lacks drivers.
const Generic = "+generic"

const (
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	// fallback is the mirror where the system names none.
	fallback = "http://deb.debian.org/debian/"
)

// wanted are the packages among those that meta depends on that hold a
// kernel: one of them up to 6.12, four since 7.x.
var wanted = regexp.MustCompile(`^(linux-(?:image|binary|modules|base)-\d[^_]*)_([^_]+)_amd64\.deb$`)

// Kernel is a kernel in the cache.
type Kernel struct {
	Suite   string // Debian's name of the release, perhaps with Generic
	Version string // of the package
	Release string // as uname -r has it
	Vmlinuz string // path of the image
	Config  string // path of its configuration
	Modules string // directory of its modules
	Builtin string // path of its modules.builtin
	// Stale is why the archive was not asked whether this is the newest;
	// empty where it was.
	Stale string
}

// Fetch returns the newest kernel of a suite. What is in cache already is not
// fetched again, and serves where the archive cannot be reached.
func Fetch(ctx context.Context, cache, suite string) (*Kernel, error) {
	dir := filepath.Join(cache, suite)
	release, isGeneric := strings.CutSuffix(suite, Generic)
	meta := "linux-image-cloud-amd64" // depends on the suite's newest
	if isGeneric {
		meta = "linux-image-amd64"
	}
	a, err := newApt(ctx, filepath.Join(dir, "apt"), release)
	if err != nil {
		return nil, err
	}
	packages, err := a.resolve(ctx, meta)
	if err != nil {
		if old, _ := filepath.Glob(filepath.Join(dir, "kernel-*")); len(old) == 1 && ctx.Err() == nil {
			k, kerr := open(suite, old[0])
			if kerr == nil {
				k.Stale = err.Error()
			}
			return k, kerr
		}
		return nil, err
	}
	_, version, _ := strings.Cut(packages[0], "=")
	final := filepath.Join(dir, "kernel-"+version)
	if k, err := open(suite, final); err == nil {
		return k, nil
	}
	tmp := filepath.Join(dir, "new")
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o755)); err != nil {
		return nil, fmt.Errorf("make room for kernel: %w", err)
	}
	if _, err := a.run(ctx, tmp, "apt-get", append([]string{"-qq", "download"}, packages...)...); err != nil {
		return nil, err
	}
	if err := errors.Join(unpackAll(ctx, tmp), decompress(ctx, tmp)); err != nil {
		return nil, err
	}
	old, _ := filepath.Glob(filepath.Join(dir, "kernel-*"))
	for _, o := range old {
		if err := os.RemoveAll(o); err != nil {
			return nil, fmt.Errorf("remove old kernel: %w", err)
		}
	}
	if err := os.Rename(tmp, final); err != nil {
		return nil, fmt.Errorf("keep kernel: %w", err)
	}
	return open(suite, final)
}

// open describes a kernel that was unpacked to dir.
func open(suite, dir string) (*Kernel, error) {
	releases, err := os.ReadDir(filepath.Join(dir, "modules"))
	if err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	if len(releases) != 1 {
		return nil, fmt.Errorf("open kernel: modules of %d kernels in %s", len(releases), dir)
	}
	k := &Kernel{
		Suite:   suite,
		Version: strings.TrimPrefix(filepath.Base(dir), "kernel-"),
		Release: releases[0].Name(),
		Vmlinuz: filepath.Join(dir, "vmlinuz"), Config: filepath.Join(dir, "config"),
		Modules: filepath.Join(dir, "modules", releases[0].Name()),
		Builtin: filepath.Join(dir, "modules.builtin"),
	}
	for _, file := range []string{k.Vmlinuz, k.Config, k.Builtin} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("open kernel: %w", err)
		}
	}
	return k, nil
}

// unpackAll takes the image, the configuration and the modules out of the
// packages in dir, and removes the packages.
func unpackAll(ctx context.Context, dir string) error {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", deb, err)
		}
		uerr := unpack(tar.NewReader(out), dir)
		_, _ = io.Copy(io.Discard, out) // so that dpkg-deb can end
		if err := errors.Join(uerr, cmd.Wait(), os.Remove(deb)); err != nil {
			return fmt.Errorf("unpack %s: %w\n%s", deb, err, &said)
		}
	}
	return nil
}

// decompress unpacks modules, which are packed since 6.12.
func decompress(ctx context.Context, dir string) error {
	packed, err := filepath.Glob(filepath.Join(dir, "modules", "*", "*.ko.xz"))
	if err != nil || len(packed) == 0 {
		return err
	}
	out, err := exec.CommandContext(ctx, "xz", append([]string{"-d", "--"}, packed...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("decompress modules: %w\n%s", err, out)
	}
	return nil
}

func unpack(tr *tar.Reader, dir string) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		name := place(h.Name)
		if h.Typeflag != tar.TypeReg || name == "" {
			continue
		}
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, tr)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// place is where a file of a package goes in the cache; empty for nowhere.
// Until 6.12 the image and the configuration are in /boot, since 7.x they are
// beside the modules.
func place(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/usr")
	base := path.Base(name)
	release, inModules := strings.CutPrefix(name, "/lib/modules/")
	release, _, _ = strings.Cut(release, "/")
	switch {
	case inModules && base == "modules.builtin":
		return base
	case inModules && strings.HasSuffix(strings.TrimSuffix(base, ".xz"), ".ko"):
		return path.Join("modules", release, base)
	case strings.HasPrefix(name, "/boot/vmlinuz-"), inModules && base == "vmlinuz":
		return "vmlinuz"
	case strings.HasPrefix(name, "/boot/config-"), inModules && base == "config":
		return "config"
	}
	return ""
}
