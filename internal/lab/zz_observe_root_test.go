//go:build root

package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestZZObserve(t *testing.T) {
	want := os.Getenv("SC")
	for _, s := range List() {
		if want != "" && !strings.Contains(","+want+",", ","+s.Name+",") {
			continue
		}
		setup, err := s.Prepare(t.Context())
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		prog := `tracepoint:skb:kfree_skb { $s=(struct sk_buff*)args->skbaddr; $i=(uint32)0; $d=(int32)0; if ($s->dev != 0) { $d=$s->dev->ifindex; $i=$s->dev->nd_net.net->ns.inum; } else if ($s->sk != 0) { $i=$s->sk->__sk_common.skc_net.net->ns.inum; }
		 if ($i == ` + fmt.Sprint(setup.NetNS) + ` || $i == 0) { @[$i, $d, args->reason, kstack(6)] = count(); } }`
		c := exec.Command("unshare", "-m", "sh", "-c", "mount -t tracefs none /sys/kernel/tracing 2>/dev/null; exec bpftrace -e \"$0\"", prog)
		out, _ := c.StdoutPipe()
		c.Stderr = c.Stdout
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Println(lines.Text())
			if strings.Contains(lines.Text(), "Attach") {
				break
			}
		}
		time.Sleep(500 * time.Millisecond)
		var truth Truth
		truth, err = setup.Provoke(t.Context(), 20)
		fmt.Println("=====", s.Name, truth.Sent, truth.Delivered, truth.Drops, err)
		for _, e := range truth.Evidence {
			fmt.Println("   ", e.Name, e.Before, e.After, e.Value)
		}
		time.Sleep(300 * time.Millisecond)
		c.Process.Signal(syscall.SIGINT)
		for lines.Scan() {
			fmt.Println(lines.Text())
		}
		c.Wait()
		if err := setup.Close(); err != nil {
			t.Error(err)
		}
	}
}
