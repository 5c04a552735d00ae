//go:build root

package diagnose_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/whydrop/whydrop/internal/testkit"
)

// TestEveryReasonOfThisKernelIsKnown reads the names from the BTF of the
// kernel that runs the test: this one, and each in a virtual machine.
func TestEveryReasonOfThisKernelIsKnown(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); errors.Is(err, fs.ErrNotExist) {
		testkit.SkipBefore(t, "5.4", "BTF of the kernel", err)
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var enum *btf.Enum
	if err := spec.TypeByName("skb_drop_reason", &enum); errors.Is(err, btf.ErrNotFound) {
		testkit.SkipBefore(t, "5.17", "drop reasons", err)
	} else if err != nil {
		t.Fatal(err)
	}
	k := load(t)
	names := 0
	for _, v := range enum.Values {
		name, ok := strings.CutPrefix(v.Name, "SKB_DROP_REASON_")
		switch {
		case !ok: // SKB_NOT_DROPPED_YET, SKB_CONSUMED: no drops
			continue
		case name == "NOT_SPECIFIED": // rules by location
			continue
		case name == "MAX", name == "SUBSYS_MASK": // markers
			continue
		}
		names++
		if v := k.Classify(key(name, "no_such_function"), nil); !v.Known {
			t.Errorf("reason %s is not in knowledge/reasons", name)
		}
	}
	if names < 50 { // 5.19 has more
		t.Errorf("only %d reasons in BTF", names)
	}
}
