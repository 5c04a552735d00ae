//go:build root

package kernelnet_test

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// TestWithoutModules asks for a device that does not exist and is called as a
// module is. Without the precaution the kernel loads that module. For as long as
// it asks, the thread lacks what would load one, and has it again afterwards.
func TestWithoutModules(t *testing.T) {
	const module = "em_nbyte" // nothing else in the tests has it loaded
	loaded := func() bool {
		_, err := os.Stat("/sys/module/" + module)
		return err == nil
	}
	loads, err := kernelnet.NewModules("").Loads()
	if err != nil {
		t.Fatal(err)
	}
	if loaded() && loads {
		t.Fatalf("module %s is loaded already", module)
	}
	testkit.InNetNS(t, func(*netlab.Namespace) {
		fd, err := kernelnet.IoctlSocket()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		ask := func() error {
			return kernelnet.Ethtool(fd, module, unsafe.Pointer(&unix.EthtoolDrvinfo{Cmd: unix.ETHTOOL_GDRVINFO}))
		}
		was := capabilities(t)
		if was&(1<<unix.CAP_NET_ADMIN) == 0 {
			t.Fatal("the test has no CAP_NET_ADMIN to lose")
		}
		if err := kernelnet.WithoutModules(func() error {
			if now := capabilities(t); now != was&^(1<<unix.CAP_NET_ADMIN|1<<unix.CAP_SYS_MODULE) {
				t.Errorf("capabilities %#x of %#x", now, was)
			}
			return ask()
		}); !errors.Is(err, unix.ENODEV) {
			t.Errorf("a device that does not exist: %v", err)
		}
		if now := capabilities(t); now != was {
			t.Errorf("afterwards capabilities %#x, before %#x", now, was)
		}
		if !loads {
			return // nothing could have been loaded
		}
		if loaded() {
			t.Fatal("the question loaded a module")
		}
		if err := ask(); !errors.Is(err, unix.ENODEV) || !loaded() {
			t.Fatalf("without the precaution: %v, loaded %v: this test would see nothing", err, loaded())
		}
		if err := unix.DeleteModule(module, 0); err != nil {
			t.Error(err)
		}
	})
}

// capabilities are the effective ones of the thread.
func capabilities(t *testing.T) uint32 {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective
}
