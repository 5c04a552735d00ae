//go:build root

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
)

// TestMapOfThisKernel compares what a System.map says of the start, a middle
// and the last byte of each function with what kallsyms says.
func TestMapOfThisKernel(t *testing.T) {
	path := testkit.SystemMap(t, nil)
	n := open(t, Host{}, path)
	if err := n.Ready(); err != nil {
		t.Fatal(err)
	}
	from := n.From()
	t.Log(from)
	for _, want := range []string{" above the file's addresses (/proc/kallsyms)", " symbols of /proc/kallsyms", " ends of sections of /proc/iomem"} {
		if !strings.Contains(from, want) {
			t.Errorf("from %q, want %q", from, want)
		}
	}
	table, err := Host{}.LoadSymbols()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for i, sym := range table.symbols {
		if sym.module != 0 || sym.isEnd() {
			continue
		}
		end, _ := table.end(i)
		for _, addr := range []uint64{sym.addr, sym.addr + (end-sym.addr)/2, end - 1} {
			compared++
			if got, want := n.Resolve(addr), table.Resolve(addr); got != want {
				t.Fatalf("%#x is %v by the map, %v by kallsyms", addr, got, want)
			}
		}
	}
	if compared < 30_000 {
		t.Errorf("only %d addresses: is this a kernel?", compared)
	}
}

// TestModulesOfThisKernel: where kallsyms knows a function of a module, a
// System.map says at least which module, and never a function of the kernel.
func TestModulesOfThisKernel(t *testing.T) {
	testkit.NeedConfig(t, "CONFIG_MODULES")
	n := open(t, Host{}, testkit.SystemMap(t, nil))
	table, err := Host{}.LoadSymbols()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Host{}.modules()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for i, sym := range table.symbols {
		module := table.modules[sym.module]
		if sym.isEnd() || loaded[module].base == 0 {
			continue
		}
		if end, _ := table.end(i); end-sym.addr < 2 {
			continue
		}
		at := n.Resolve(sym.addr + 1)
		if at.Symbol != "" || at.Module != "" && at.Module != module {
			t.Fatalf("%s of %s is %v", table.name(sym), module, at)
		}
		if at.Module == module {
			compared++
		}
	}
	t.Logf("%d functions of modules", compared)
	if compared < 100 {
		t.Errorf("only %d functions of modules are in them", compared)
	}
}

func TestMapOfAnotherKernel(t *testing.T) {
	for _, c := range []struct {
		what, want string
		change     func(string) string
	}{
		{"another start", "and 0x", testkit.OtherStart},
		{"another end", "in /proc/iomem", testkit.OtherBuild},
	} {
		_, err := Host{}.OpenNames(testkit.SystemMap(t, c.change))
		if !errors.Is(err, ErrOtherKernel) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", c.what, err)
		}
	}
}

// TestMapWithoutCapability: where kallsyms hides its addresses, nothing is
// guessed.
func TestMapWithoutCapability(t *testing.T) {
	path := testkit.SystemMap(t, nil)
	aside(t, func() error {
		if err := dropCapabilities(unix.CAP_SYSLOG); err != nil {
			return err
		}
		n, err := Host{}.OpenNames(path)
		if err != nil {
			return err
		}
		defer n.Close()
		if err := n.Ready(); !errors.Is(err, ErrNotPlaced) || !strings.Contains(err.Error(), "CAP_SYSLOG") {
			return fmt.Errorf("error %v, want hidden addresses and CAP_SYSLOG", err)
		}
		if anchors, _ := (Host{}).Anchors(); anchors != nil {
			return fmt.Errorf("anchors of hidden addresses: %v", anchors)
		}
		return nil
	})
}

// TestBuildIDOfThisKernel compares the build id with what the plainest look at
// the notes finds.
func TestBuildIDOfThisKernel(t *testing.T) {
	notes, err := os.ReadFile("/sys/kernel/notes")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := bytes.Cut(notes, []byte("GNU\x00"))
	if !ok || len(after) < 20 {
		t.Fatalf("no build id in %x", notes)
	}
	if got, want := (Host{}).buildID(), fmt.Sprintf("%x", after[:20]); got != want {
		t.Errorf("build id %s, want %s", got, want)
	}
}
