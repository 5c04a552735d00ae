package netlab

import (
	"errors"
	"os"
	"testing"
)

func TestWriteSysctl(t *testing.T) {
	if err := writeSysctl("net.ipv4.conf.no-such-device.rp_filter", "0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("setting that does not exist: %v", err)
	}
}
