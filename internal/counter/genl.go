package counter

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// genlDump sends a command that asks for all objects and returns the attributes
// of each answer.
func genlDump(f kernelnet.Family, command uint8, attrs kernelnet.Message) (messages [][]byte, err error) {
	for range maxTries {
		messages, err = genlAsk(f, command, unix.NLM_F_DUMP, attrs)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return messages, err
}

// genlAsk sends a command once.
func genlAsk(f kernelnet.Family, command uint8, flags int, attrs kernelnet.Message) (messages [][]byte, err error) {
	err = f.Ask(command, flags, attrs, func(m []byte) error {
		messages = append(messages, m)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("generic netlink command %d: %w", command, err)
	}
	return messages, nil
}

// genlUnsupported says whether a refusal means that there is no such thing: the
// kernel does not know the command (EOPNOTSUPP), or the family went (ENOENT).
func genlUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
}
