package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// apt is apt with a private state and one suite. Settings such as a proxy are
// the system's.
type apt struct{ options []string }

func newApt(ctx context.Context, dir, suite string) (*apt, error) {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make state of apt: %w", err)
		}
	}
	source := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror(ctx), suite)
	sources, status := filepath.Join(dir, "sources.list"), filepath.Join(dir, "status")
	if err := errors.Join(os.WriteFile(sources, []byte(source), 0o644), os.WriteFile(status, nil, 0o644)); err != nil {
		return nil, fmt.Errorf("make state of apt: %w", err)
	}
	a := &apt{}
	for _, o := range []string{
		"Dir::State=" + filepath.Join(dir, "state"), "Dir::State::status=" + status,
		"Dir::Cache=" + filepath.Join(dir, "cache"),
		"Dir::Etc::sourcelist=" + sources, "Dir::Etc::sourceparts=/dev/null",
		"Dir::Etc::preferences=/dev/null", "Dir::Etc::preferencesparts=/dev/null",
		"APT::Architecture=amd64", "APT::Architectures=amd64", "APT::Sandbox::User=",
		"Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::Retries=3",
		// Nothing without Debian's signature, whatever the system allows.
		"APT::Get::AllowUnauthenticated=false", "Acquire::AllowInsecureRepositories=false",
		"Acquire::AllowWeakRepositories=false", "Acquire::AllowDowngradeToInsecureRepositories=false",
	} {
		a.options = append(a.options, "-o", o)
	}
	return a, nil
}

// mirror is Debian's archive as /etc/apt names it.
func mirror(ctx context.Context) string {
	out, _ := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)").Output()
	for uri := range strings.Lines(string(out)) {
		if uri = strings.TrimSpace(uri); strings.HasSuffix(uri, "/debian/") {
			return uri
		}
	}
	return fallback
}

// resolve reads the suite's index and returns the packages of the kernel that
// meta depends on, each as name=version.
func (a *apt) resolve(ctx context.Context, meta string) ([]string, error) {
	if _, err := a.run(ctx, "", "apt-get", "-qq", "--error-on=any", "update"); err != nil {
		return nil, err
	}
	out, err := a.run(ctx, "", "apt-get", "-qq", "--print-uris", "--no-install-recommends", "install", meta)
	if err != nil {
		return nil, err
	}
	var packages []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 {
			if m := wanted.FindStringSubmatch(f[1]); m != nil {
				packages = append(packages, m[1]+"="+m[2])
			}
		}
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("resolve %s: no kernel among its packages:\n%s", meta, out)
	}
	return packages, nil
}

// run runs a program of apt in dir and returns what it printed.
func (a *apt) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, append(a.options[:len(a.options):len(a.options)], args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &said)
	}
	return out.String(), nil
}
