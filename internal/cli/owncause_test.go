package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/record"
)

// collector fits the drops of the recorded file as well as udp-rcvbuf does.
const collector = `id: acme-collector
title: "${drops} datagrams came while the Acme collector wrote its files"
class: capacity
station: socket
direction: rx
drops:
  - reasons: [SOCKET_RCVBUFF]
`

// A cause of somebody's own that is as sure as a built-in one comes first, and both
// are named.
func TestOwnCauseComesFirst(t *testing.T) {
	path := recorded(t, true)
	dir := ownDir(t, map[string]string{"acme-collector/cause.yaml": collector})
	r := here(t, "diagnose", "-r", path, "-j", "--knowledge", dir)
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil {
		t.Fatalf("%v\n%s%s", err, r.out, r.err)
	}
	if len(d.Findings) != 1 || d.Findings[0].Cause != "acme-collector" || d.Findings[0].Drops != 174 {
		t.Fatalf("findings %+v", d.Findings)
	}
	if next := strings.Join(d.Findings[0].Next, "\n"); !strings.Contains(next, "whydrop explain udp-rcvbuf ") {
		t.Errorf("the built-in cause is not named: %q", next)
	}
}

// watch uses no causes, and says so where it matters; a cause that is not good does
// not keep it from watching.
func TestWatchUsesNoCauses(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the race detector sees the base read in TestOwnKnowledgeOverrides and in internal/diagnose")
	}
	path := recorded(t, true)
	good := ownDir(t, map[string]string{"acme-collector/cause.yaml": collector})
	bad := ownDir(t, map[string]string{"acme-collector/cause.yaml": strings.Replace(collector, "capacity", "luck", 1)})
	whole := ownDir(t, map[string]string{
		"causes/acme-collector/cause.yaml": collector,
		"reasons/acme.yaml":                "reasons:\n  ACME_SHAPED: {class: policy, station: qdisc, sentence: The Acme shaper refused the packet.}\n",
	})
	const alone, refused = "has causes alone, which are for diagnose", "diagnose refuses this, watch does not use it"
	for _, c := range []struct {
		name, dir string
		hostsOwn  bool
		want      []string
		not       []string
	}{
		{"asked for", good, false, []string{alone}, []string{refused}},
		{"not good", bad, false, []string{alone, refused, `unknown class "luck"`}, nil},
		{"with reasons", whole, false, nil, []string{alone, refused}},
		{"of this host", good, true, nil, []string{alone, refused}},
		{"of this host, and not good", bad, true, []string{refused}, []string{alone}},
	} {
		args := []string{"watch", "-r", path, "--knowledge", c.dir}
		if c.hostsOwn {
			was := ownCauses
			ownCauses, args = c.dir, args[:3]
			defer func() { ownCauses = was }()
		}
		r := here(t, args...)
		if r.code != exitOK || strings.Count(r.out, "\n") != 2 {
			t.Errorf("%s: exit status %d\n%s%s", c.name, r.code, r.out, r.err)
		}
		for _, want := range c.want {
			if !strings.Contains(r.err, want) {
				t.Errorf("%s: no %q in %s", c.name, want, r.err)
			}
		}
		for _, not := range c.not {
			if strings.Contains(r.err, not) {
				t.Errorf("%s: %q in %s", c.name, not, r.err)
			}
		}
	}
	if help := here(t, "watch", "--help"); !strings.Contains(help.out, "watch uses reasons and locations, and no causes") {
		t.Error(help.out)
	}
}
