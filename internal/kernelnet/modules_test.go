package kernelnet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestModules(t *testing.T) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	builtins := "lib/modules/" + unix.ByteSliceToString(uts.Release[:]) + "/modules.builtin"
	const modular, disabled, loaded = "proc/modules", "proc/sys/kernel/modules_disabled", "sys/module/inet_diag/"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  bool
		bad   string
	}{
		{"loaded", map[string]string{modular: "", loaded: "", "sys/module/tcp_diag/": ""}, true, ""},
		{"a kernel without modules", map[string]string{"proc/self/": ""}, true, ""},
		{"no procfs", map[string]string{"sys/": ""}, false, "inet_diag"},
		{"loading is switched off", map[string]string{modular: "", disabled: "1\n"}, true, ""},
		{"built in", map[string]string{modular: "", disabled: "0\n", builtins: "kernel/net/ipv4/inet_diag.ko\nkernel/net/ipv4/tcp-diag.ko\n"}, true, ""},
		{"not loaded", map[string]string{modular: "", disabled: "0\n", builtins: "kernel/net/ipv4/mptcp_diag.ko\nkernel/x/tcp_diag2.ko\n"}, false, ""},
		{"one of two", map[string]string{modular: "", loaded: "", builtins: ""}, false, ""},
		{"nobody knows", map[string]string{modular: "", disabled: "0\n", loaded: ""}, false, "tell whether tcp_diag is there without loading it"},
	} {
		root := t.TempDir()
		for name, content := range tt.files {
			path := filepath.Join(root, name)
			dir, file := filepath.Split(path + name[len(strings.TrimSuffix(name, "/")):])
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if file == "" {
				continue
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := NewModules(root).Has("inet_diag", "tcp_diag")
		if got != tt.want || (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}
