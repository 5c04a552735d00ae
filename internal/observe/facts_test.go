package observe

import (
	"context"
	"testing"
	"time"

	"github.com/whydrop/whydrop/record"
)

var someRequests = []record.FactRequest{
	{Kind: "sysctl", Arg: "net/core/netdev_max_backlog"},
	{Kind: "netns"},
	{Kind: "owner", Arg: "1", NetNS: 7},
}

// Who interrupts the reading of facts gets none, and is told so for each.
func TestFactsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	facts, _ := Facts(ctx, someRequests)
	if len(facts) != len(someRequests) {
		t.Fatalf("%d answers: %+v", len(facts), facts)
	}
	for i, f := range facts {
		req := someRequests[i]
		if f.Missing != noTimeLeft || f.Kind != req.Kind || f.Request != req.Arg || f.NetNS.Inode != req.NetNS {
			t.Errorf("%+v: %+v", req, f)
		}
	}
}

// A namespace is not gone through to its end when the time is over.
func TestAnswerEndsInTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := &answers{requests: someRequests, list: make([][]record.Fact, len(someRequests))}
	(&factReader{answers: a}).answer(ctx, 0)
	if a.has(0) {
		t.Errorf("read: %+v", a.list[0])
	}
}

// A kernel that does not answer keeps nobody waiting, and what it has answered
// before is not lost.
func TestFactsThatHang(t *testing.T) {
	release, hung := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	read := func(ctx context.Context, a *answers) {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > FactsTime {
			t.Errorf("reading may go on until %s", deadline)
		}
		a.set(0, record.Fact{Kind: "sysctl", Value: "1000"})
		cancel()
		<-release
		a.set(1, record.Fact{Kind: "netns", Value: "late"})
		close(hung)
	}
	facts, _ := inTime(ctx, someRequests, read)
	close(release)
	<-hung
	if len(facts) != 3 || facts[0].Value != "1000" || facts[1].Missing != noTimeLeft || facts[2].Missing != noTimeLeft {
		t.Errorf("%+v", facts)
	}
}
