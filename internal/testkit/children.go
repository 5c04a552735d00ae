package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// socketsVariable tells a child of a test which sockets it is to open.
const socketsVariable = "WHYDROP_TEST_SOCKETS"

// ManySockets has n sockets opened in the namespace of the calling thread, by as
// many children as the limit of open files asks for, and returns the line that
// each said when it had its own. A child runs the test of that name again, which
// must call [SocketChild] first. The sockets are closed when the test ends.
func ManySockets(t testing.TB, test string, n int) (said []string) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	each := int(min(limit.Max, 20_000)) - 50
	for first := 0; first < n; first += each {
		said = append(said, socketChild(t, test, first, min(each, n-first)))
	}
	return said
}

func socketChild(t testing.TB, test string, first, n int) string {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", socketsVariable, first, n))
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	stdout, outErr := child.StdoutPipe()
	if err := errors.Join(err, outErr, child.Start()); err != nil { // of the thread that is in the namespace
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close() // which ends it
		_, _ = io.Copy(io.Discard, stdout)
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("child with sockets %d to %d: %q, %v", first, first+n, line, err)
	}
	return line
}

// SocketChild says whether this process is a child of [ManySockets]. Then open
// opened its sockets, by their numbers, and said a line of words.
func SocketChild(t testing.TB, open func(first, n int) string) bool {
	t.Helper()
	var first, n int
	if _, err := fmt.Sscanf(os.Getenv(socketsVariable), "%d %d", &first, &n); err != nil {
		return false
	}
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	limit.Cur = limit.Max
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	fmt.Println(open(first, n))
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has seen enough
	return true
}

// Ethtool runs ethtool in the namespace of the thread and gives what it says. ok
// is false where the kernel says that the device has no such thing.
func Ethtool(t testing.TB, args ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.Command("ethtool", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		said := strings.ToLower(string(b))
		for _, none := range []string{"not supported", "no stats available", "no data available"} {
			if strings.Contains(said, none) {
				return "", false
			}
		}
		t.Fatalf("ethtool %v: %v: %s", args, err, b)
	}
	if err != nil {
		t.Fatalf("%v (apt-get install ethtool; make test does)", err)
	}
	return string(b), true
}
