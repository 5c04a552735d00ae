package counter

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// noSubsystem says whether an error of a dump of nfnetlink means that this
// kernel has no such subsystem or no such request.
func noSubsystem(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// netAdmin is what netfilter asks for.
const netAdmin = "CAP_NET_ADMIN in the user namespace that owns this network namespace"

// live are the parts of this kernel that may be modules.
var live = kernelnet.NewModules("")
