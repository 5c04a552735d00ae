package kernel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNearest(t *testing.T) {
	names := []string{"NO_SOCKET", "NOT_SPECIFIED", "SOCKET_RCVBUFF", "NO_SOCKET", "SOCKET_FILTER", "TTL"}
	for wanted, want := range map[string][]string{
		"no_soket": {"NO_SOCKET"}, "socket": {"NO_SOCKET", "SOCKET_RCVBUFF"}, "tl": {"TTL"}, "xyz": {}, "": {}, "NO_SOCKET": {"NO_SOCKET"},
	} {
		if d := cmp.Diff(want, Nearest(wanted, names, 2, strings.ToUpper)); d != "" {
			t.Errorf("%q: %s", wanted, d)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want || distance(c.b, c.a) != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
