package kernel

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

func TestParseSections(t *testing.T) {
	old := strings.ReplaceAll(iomem, "  01700000-017fffff : Kernel rodata\n", "")
	arm := "40200000-40ffffff : Kernel code\n41100000-411fffff : reserved\n41200000-413fffff : Kernel data\n"
	for _, c := range []struct{ what, iomem, arch, want string }{
		{"x86", iomem, "amd64", "_text 0x1000000, _etext 0x14f0e2d, __start_rodata 0x1700000, __end_rodata 0x1800000, _sdata 0x1800000, _edata 0x1a00000, __bss_start 0x1b00000, __bss_stop 0x1c00000"},
		{"x86 before 5.5", old, "amd64", "_text 0x1000000, _etext 0x14f0e2d, _etext 0x1800000, _edata 0x1a00000, __bss_start 0x1b00000, __bss_stop 0x1c00000"},
		{"arm64", arm, "arm64", "__init_begin 0x41000000, _sdata 0x41200000, _end 0x41400000"},
		{"hidden", hiddenIomem, "amd64", ""},
		{"another machine", iomem, "mips", ""},
		{"nonsense", "x-y : Kernel code\n-1-5 : Kernel code\n5 : Kernel bss\n9-3 : Kernel data\n", "amd64", ""},
	} {
		var got []string
		for _, a := range parseSections([]byte(c.iomem), parts[c.arch]) {
			got = append(got, fmt.Sprintf("%s %v", a.Symbol, a.Address))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.what, s, c.want)
		}
	}
}

func TestNoKASLR(t *testing.T) {
	const off = "CONFIG_NET=y\n# CONFIG_RANDOMIZE_BASE is not set\n"
	for _, c := range []struct {
		what, cmdline, config, want string
	}{
		{"said so", "root=/dev/vda nokaslr quiet", "", "nokaslr in /proc/cmdline"},
		{"not built in", "quiet", off, "CONFIG_RANDOMIZE_BASE is not set in /boot/config-6.1.0"},
		{"built in", "quiet", "CONFIG_NET=y\nCONFIG_RANDOMIZE_BASE=y\n", ""},
		{"no configuration", "quiet mynokaslr nokaslr=1", "", ""},
		{"an empty one", "quiet", "\n", ""},
	} {
		files := map[string]string{"/proc/cmdline": c.cmdline + "\n", "/proc/sys/kernel/osrelease": "6.1.0\n"}
		if c.config != "" {
			files["/boot/config-6.1.0"] = c.config
		}
		if got := fakeHost(t, files).noKASLR(); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// note is a note of an ELF file.
func note(kind uint32, name, desc string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.NativeEndian.AppendUint32(b, kind)
	for _, s := range []string{name, desc} {
		b = append(b, s...)
		b = append(b, make([]byte, (4-len(s)%4)%4)...)
	}
	return b
}

func TestParseBuildID(t *testing.T) {
	id := note(3, "GNU\x00", "\x03\x02\xf0\x64\xff")
	for _, c := range []struct {
		what  string
		notes []byte
		want  string
	}{
		{"alone", id, "0302f064ff"},
		{"behind others", append(append(note(18, "Xen\x00", "1234567"), note(3, "CORE\x00", "12")...), id...), "0302f064ff"},
		{"none", note(6, "Linux\x00", "\x01"), ""},
		{"cut off", id[:len(id)-4], ""},
		{"too long", note(3, "GNU\x00", strings.Repeat("x", 65)), ""},
		{"a length beyond everything", []byte("\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00\x00\x00GNU\x00"), ""},
	} {
		if got := parseBuildID(c.notes, binary.NativeEndian); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
