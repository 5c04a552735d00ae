package netns

import (
	"testing"

	"github.com/whydrop/whydrop/internal/testkit"
)

func TestCookie(t *testing.T) {
	a, err := Cookie()
	testkit.SkipBefore(t, "5.14", "SO_NETNS_COOKIE", err)
	if b, err := Cookie(); err != nil || a == 0 || a != b {
		t.Errorf("%d, then %d, %v", a, b, err)
	}
}
