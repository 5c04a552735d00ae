package counter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// String sets of include/uapi/linux/ethtool.h, enum ethtool_stringset.
const (
	setStats    = 1
	setPHYStats = 7
)

// maxStats is how many statistics are read of one device and set. An mlx5 with
// 128 channels has 9,000.
const maxStats = 1 << 15

// sizeofGString is ETH_GSTRING_LEN.
const sizeofGString = 32

// ethtoolIoctl asks the drivers of the namespace that its socket is in.
type ethtoolIoctl struct {
	fd int
	// mem is what the kernel writes to. It believes the driver about how much
	// that is, and not the program (net/ethtool/ioctl.c, ethtool_get_strings,
	// before 6.19). So the memory is apart from all others, and ends where
	// nothing may be written.
	mem []byte
	// last are the strings of the last device, by set. Most of many devices have
	// the same driver and so the same strings.
	last map[uint]*gstrings
}

// openEthtool makes ready to ask in the calling thread's namespace.
func openEthtool() (*ethtoolIoctl, error) {
	const head = 12 // struct ethtool_gstrings before its data
	page := os.Getpagesize()
	size := (head + maxStats*sizeofGString + page - 1) / page * page
	fd, err := kernelnet.IoctlSocket()
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(-1, 0, size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		if err = unix.Mprotect(mem[size:], unix.PROT_NONE); err != nil {
			err = errors.Join(err, unix.Munmap(mem))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("memory for ioctls: %w", err), unix.Close(fd))
	}
	return &ethtoolIoctl{fd: fd, mem: mem, last: map[uint]*gstrings{}}, nil
}

func (e *ethtoolIoctl) close() error {
	return errors.Join(unix.Munmap(e.mem), unix.Close(e.fd))
}

// data is what may be read and written.
func (e *ethtoolIoctl) data() []byte { return e.mem[:len(e.mem)-os.Getpagesize()] }

// call hands the memory, which begins with a command, to the driver of a
// device.
func (e *ethtoolIoctl) call(device string) error {
	return kernelnet.Ethtool(e.fd, device, unsafe.Pointer(&e.mem[0]))
}

// name is what a device is called now. It never loads a module (net/core/dev_ioctl.c,
// dev_ifname).
func (e *ethtoolIoctl) name(index uint32) (string, error) {
	req, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	req.SetUint32(index)
	if err := unix.IoctlIfreq(e.fd, unix.SIOCGIFNAME, req); err != nil {
		return "", err
	}
	return req.Name(), nil
}

// counts asks how many strings a device has in the sets. One that it does not
// have is 0.
func (e *ethtoolIoctl) counts(device string, sets ...uint) (map[uint]int, error) {
	b := e.data()
	var mask uint64
	for _, set := range sets {
		mask |= 1 << set
	}
	binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GSSET_INFO)
	binary.NativeEndian.PutUint32(b[4:], 0)
	binary.NativeEndian.PutUint64(b[8:], mask)
	if err := e.call(device); err != nil {
		return nil, fmt.Errorf("ETHTOOL_GSSET_INFO: %w", err)
	}
	return parseCounts(b[:16+4*len(sets)])
}

// parseCounts reads struct ethtool_sset_info: the sets that there are, and
// behind it how many strings are in each.
func parseCounts(b []byte) (map[uint]int, error) {
	mask, ok := u64(b, 8)
	if !ok {
		return nil, fmt.Errorf("struct ethtool_sset_info: %w", kernelnet.ErrShort)
	}
	counts := map[uint]int{}
	at := 16
	for set := uint(0); set < 64; set++ {
		if mask&(1<<set) == 0 {
			continue
		}
		n, ok := u32(b, at)
		if !ok {
			return nil, fmt.Errorf("struct ethtool_sset_info of %d bytes: %w", len(b), kernelnet.ErrShort)
		}
		counts[set] = int(n)
		at += 4
	}
	return counts, nil
}

// errChanged says that a driver had another number of statistics a moment
// later.
var errChanged = errors.New("the number of statistics changed meanwhile")

// strings asks for the n strings of a set. n must not be 0: the kernel prints
// a warning with a stack for that (ethtool_get_strings).
func (e *ethtoolIoctl) strings(device string, set uint, n int) (*gstrings, error) {
	b := e.data()
	clear(b[:12+n*sizeofGString])
	binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(b[4:], uint32(set))
	binary.NativeEndian.PutUint32(b[8:], uint32(n))
	if err := e.call(device); err != nil {
		return nil, fmt.Errorf("ETHTOOL_GSTRINGS: %w", err)
	}
	answer := b[:12+n*sizeofGString]
	if last := e.last[set]; last != nil && bytes.Equal(last.answer, answer) {
		return last, nil
	}
	names, err := parseGStrings(answer, n)
	if err != nil {
		return nil, err
	}
	e.last[set] = &gstrings{answer: bytes.Clone(answer), names: names}
	return e.last[set], nil
}

// parseGStrings reads struct ethtool_gstrings.
func parseGStrings(b []byte, n int) ([]string, error) {
	got, ok := u32(b, 8)
	if !ok || got != uint64(n) {
		return nil, errChanged
	}
	if len(b) < 12+n*sizeofGString {
		return nil, fmt.Errorf("%d strings in %d bytes: %w", n, len(b), kernelnet.ErrShort)
	}
	names := make([]string, n)
	for i := range names {
		names[i] = unix.ByteSliceToString(b[12+i*sizeofGString:][:sizeofGString])
	}
	return names, nil
}

// stats asks for the n numbers of ETHTOOL_GSTATS or ETHTOOL_GPHYSTATS.
func (e *ethtoolIoctl) stats(device string, command uint32, n int) ([]uint64, error) {
	b := e.data()
	clear(b[:8+n*8])
	binary.NativeEndian.PutUint32(b, command)
	binary.NativeEndian.PutUint32(b[4:], uint32(n))
	if err := e.call(device); err != nil {
		return nil, fmt.Errorf("ethtool command %#x: %w", command, err)
	}
	return parseGStats(b, n)
}

// parseGStats reads struct ethtool_stats.
func parseGStats(b []byte, n int) ([]uint64, error) {
	got, ok := u32(b, 4)
	if !ok || got != uint64(n) {
		return nil, errChanged
	}
	values := make([]uint64, n)
	for i := range values {
		if values[i], ok = u64(b, 8+8*i); !ok {
			return nil, fmt.Errorf("%d statistics in %d bytes: %w", n, len(b), kernelnet.ErrShort)
		}
	}
	return values, nil
}
