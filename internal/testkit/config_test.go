package testkit

import "testing"

func TestHasOption(t *testing.T) {
	const config = "CONFIG_FIRST=y\n# CONFIG_VETH is not set\nCONFIG_NET_SCH_FQ_CODEL=m\nCONFIG_HZ=250\n"
	for option, want := range map[string]bool{
		"CONFIG_FIRST": true, "CONFIG_NET_SCH_FQ_CODEL": true,
		"CONFIG_VETH": false, "CONFIG_NET_SCH_FQ": false, "CONFIG_HZ": false, "FIRST": false,
	} {
		if got := hasOption([]byte(config), option); got != want {
			t.Errorf("%s: %t", option, got)
		}
	}
}
