package debian

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestPlace(t *testing.T) {
	for name, want := range map[string]string{
		"./boot/vmlinuz-5.10.0-32-cloud-amd64":                                     "vmlinuz",
		"./boot/config-5.10.0-32-cloud-amd64":                                      "config",
		"./boot/System.map-5.10.0-32-cloud-amd64":                                  "",
		"./lib/modules/5.10.0-32-cloud-amd64/kernel/drivers/net/veth.ko":           "modules/5.10.0-32-cloud-amd64/veth.ko",
		"./usr/lib/modules/7.2.12+deb14-cloud-amd64/kernel/drivers/net/veth.ko.xz": "modules/7.2.12+deb14-cloud-amd64/veth.ko.xz",
		"./usr/lib/modules/7.2.12+deb14-cloud-amd64/vmlinuz":                       "vmlinuz",
		"./usr/lib/modules/7.2.12+deb14-cloud-amd64/config":                        "config",
		"./usr/lib/modules/7.2.12+deb14-cloud-amd64/modules.builtin":               "modules.builtin",
		"./usr/lib/modules/7.2.12+deb14-cloud-amd64/modules.builtin.modinfo":       "",
		"./usr/share/bug/linux-image-7.2.12+deb14-cloud-amd64/config":              "",
		"./usr/lib/modules/../../../../../etc/passwd.ko":                           "",
	} {
		if got := place(name); got != want {
			t.Errorf("place(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestWanted(t *testing.T) {
	for file, want := range map[string]string{
		"linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb":      "linux-image-6.1.0-50-cloud-amd64=6.1.176-1",
		"linux-modules-7.2.12+deb14-cloud-amd64_7.2.12-1_amd64.deb": "linux-modules-7.2.12+deb14-cloud-amd64=7.2.12-1",
		"linux-base-7.2.12+deb14-cloud-amd64_7.2.12-1_amd64.deb":    "linux-base-7.2.12+deb14-cloud-amd64=7.2.12-1",
		"linux-image-6.12.107+deb13-amd64_6.12.107-1_amd64.deb":     "linux-image-6.12.107+deb13-amd64=6.12.107-1",
		"linux-image-cloud-amd64_6.1.176-1_amd64.deb":               "",
		"linux-image-amd64_6.1.176-1_amd64.deb":                     "",
		"linux-base_4.12.1~deb12u1_all.deb":                         "",
	} {
		got := ""
		if m := wanted.FindStringSubmatch(file); m != nil {
			got = m[1] + "=" + m[2]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// TestOpenRefuses: half a kernel in the cache is no kernel.
func TestOpenRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kernel-1.2-3")
	file := func(name string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"modules/1.2.0-3/veth.ko", "vmlinuz", "config"} {
		file(name)
		if k, err := open("suite", dir); err == nil {
			t.Errorf("opened %+v", k)
		}
	}
	file("modules.builtin")
	k, err := open("suite", dir)
	if err != nil || k.Release != "1.2.0-3" || k.Version != "1.2-3" {
		t.Errorf("opened %+v, %v", k, err)
	}
	file("modules/1.2.0-4/veth.ko")
	if k, err := open("suite", dir); err == nil {
		t.Errorf("opened %+v", k)
	}
}

func TestDecompress(t *testing.T) {
	dir := t.TempDir()
	modules := filepath.Join(dir, "modules", "1.2.0-3")
	if err := os.MkdirAll(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := decompress(t.Context(), dir); err != nil {
		t.Errorf("nothing to decompress: %v", err)
	}
	path := filepath.Join(modules, "veth.ko")
	if err := os.WriteFile(path, []byte("module"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("xz", path).CombinedOutput(); err != nil {
		t.Fatalf("xz: %v\n%s", err, out)
	}
	if err := decompress(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); string(b) != "module" {
		t.Errorf("got %q, %v", b, err)
	}
	if err := os.WriteFile(path+".xz", []byte("no archive"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := decompress(t.Context(), dir); err == nil {
		t.Error("no error from what is no archive")
	}
}
