package fact

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// readQueues gives the queues of NFQUEUE that a program reads. The kernel has
// a queue only as long as the socket that bound it is open (nfqnl_rcv_nl_event
// of net/netfilter/nfnetlink_queue.c), so every line has a listener.
func readQueues(q *query) error {
	const file = "net/netfilter/nfnetlink_queue"
	q.source, q.command = "/proc/"+file, "cat /proc/"+file
	s, err := q.readFile("/proc/thread-self/" + file)
	if errors.Is(err, fs.ErrNotExist) {
		// Every namespace has the file where nfnetlink_queue is loaded or built
		// in; without it there is no queue. Without procfs nothing is known.
		_, err = os.Stat(q.path("/proc/thread-self/net"))
		return err
	}
	if err != nil {
		return fmt.Errorf("read queues: %w", kernelnet.NeedsCap(err, "root"))
	}
	return parseQueues(s, func(number, queued string, f fields) { q.add(number, queued, f) })
}

// queueColumns are those of a line that seq_show of nfnetlink_queue.c prints
// (5.10 to 6.18); two more, of which nothing is said here, follow.
var queueColumns = []string{"queue", "portid", "queued", "copy_mode", "copy_range", "dropped", "user_dropped"}

func parseQueues(s string, each func(number, queued string, f fields)) error {
	lines := bufio.NewScanner(strings.NewReader(s))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < len(queueColumns) {
			return fmt.Errorf("line %q: %d columns", lines.Text(), len(words))
		}
		f := fields{}
		for i, name := range queueColumns {
			v, err := strconv.ParseUint(words[i], 10, 32)
			if err != nil {
				return fmt.Errorf("line %q: %s: %w", lines.Text(), name, err)
			}
			f[name] = strconv.FormatUint(v, 10)
		}
		number := f["queue"]
		delete(f, "queue")
		each(number, f["queued"], f)
	}
	return lines.Err()
}
