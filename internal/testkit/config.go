package testkit

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"
)

// Configured says whether this kernel was built with an option (CONFIG_…). A
// kernel that does not show its configuration is one of Debian's, which have all
// that the tests ask for.
func Configured(t testing.TB, option string) bool {
	t.Helper()
	text, err := readConfig()
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	return hasOption(text, option)
}

// Wants says what Configured does. Without the option it counts a skip, as a
// test of the option's name below t, which goes on.
func Wants(t *testing.T, option string) bool {
	t.Helper()
	if Configured(t, option) {
		return true
	}
	t.Run(option, func(t *testing.T) { t.Skipf("this kernel was built without %s", option) })
	return false
}

// NeedConfig skips the test where this kernel was built without an option.
func NeedConfig(t testing.TB, option string) {
	t.Helper()
	if !Configured(t, option) {
		t.Skipf("this kernel was built without %s", option)
	}
}

func hasOption(config []byte, option string) bool {
	config = append([]byte("\n"), config...)
	return bytes.Contains(config, []byte("\n"+option+"=y\n")) || bytes.Contains(config, []byte("\n"+option+"=m\n"))
}

// readConfig reads the configuration that the kernel shows.
func readConfig() ([]byte, error) {
	f, err := os.Open("/proc/config.gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
