package lab

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// nfRateLimit sends more than a rule of the firewall lets through.
func nfRateLimit() Scenario {
	return Scenario{
		Name:  "nf-ratelimit",
		Title: "packets beyond what a firewall rule with a rate limit accepts",
		build: buildRateLimit,
	}
}

// buildRateLimit makes the rules "udp dport 7777 limit rate 1/hour accept" and
// "udp dport 7777 counter drop", and uses up the burst: the next packet would
// be accepted in an hour (net/netfilter/nft_limit.c, nft_limit_eval).
func buildRateLimit(t *topology) (*rig, error) {
	const rate, burst = 1, 5
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	read, err := t.sink(t.host, dstPort)
	if err != nil {
		return nil, err
	}
	c, err := t.chain(nftables.TableFamilyIPv4, nftables.Chain{
		Name: "input", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	if err != nil {
		return nil, err
	}
	limit := &expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeHour, Burst: burst}
	if err := c.rule(append(toPort(protoUDP, dstPort), limit, &expr.Verdict{Kind: expr.VerdictAccept})...); err != nil {
		return nil, err
	}
	if err := r.dropRule(c, "ip", toPort(protoUDP, dstPort)...); err != nil {
		return nil, err
	}
	err = r.from.Do(func() error {
		for range burst {
			if err := r.emit(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, await(read, burst, r.patience)
}
