package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/record"
)

// fileOfDwdump is what Debian's dwdump wrote of three datagrams to a closed port.
const fileOfDwdump = "../netlinkpcap/testdata/dwdump-1.5.4.pcap"

// TestReportIsDiagnose: report says of a file what diagnose -r says, however it
// is named.
func TestReportIsDiagnose(t *testing.T) {
	for _, path := range []string{recorded(t, true), recorded(t, false), fileOfDwdump} {
		for _, flags := range [][]string{nil, {"-j"}, {"--all"}, {"--reason", "SOCKET_RCVBUFF"}, {"--fail-on", "capacity"}} {
			want := here(t, append([]string{"diagnose", "-r", path}, flags...)...)
			for _, args := range [][]string{{"report", "-r", path}, {"report", path}} {
				if got := here(t, append(args, flags...)...); got != want {
					t.Errorf("whydrop %q %q: %+v\ndiagnose: %+v", args, flags, got, want)
				}
			}
		}
	}
}

func TestReportOfCapture(t *testing.T) {
	r := here(t, "report", "-j", fileOfDwdump)
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); err != nil || r.code != exitOK {
		t.Fatalf("exit status %d, %v\n%s%s", r.code, err, r.out, r.err)
	}
	if len(d.Findings) != 1 || d.Findings[0].Cause != "udp-noport" || d.Findings[0].Drops != 3 || d.Findings[0].LostBy != "drops" {
		t.Errorf("findings: %+v", d.Findings)
	}
	if a := d.Accounting; a.DropsSeen != 3 || a.Samples != 3 || len(d.Blind) == 0 || d.Sources[0].Name != "dropmon" {
		t.Errorf("accounting %+v, sources %+v, blind %+v", a, d.Sources, d.Blind)
	}
	r = here(t, "watch", "--each", "-r", fileOfDwdump)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if r.code != exitOK || len(lines) != 3 {
		t.Fatalf("watch: exit status %d\n%s%s", r.code, r.out, r.err)
	}
	for _, want := range []string{"NO_SOCKET at __udp4_lib_rcv+0x235", "dev #1", "udp 127.0.0.1:4242 > 127.0.0.1:9", "len 46"} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %q in %q", want, lines[0])
		}
	}
}

// TestReportReadsStandardInput also of a packed file.
func TestReportReadsStandardInput(t *testing.T) {
	for _, path := range []string{recorded(t, true), fileOfDwdump} {
		plain, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		want := here(t, "report", path)
		for name, b := range map[string][]byte{"plain": plain, "packed": packed.Bytes()} {
			var out, errOut bytes.Buffer
			code := Main([]string{"report", "-r", "-"}, bytes.NewReader(b), &out, &errOut)
			if got := (result{out.String(), errOut.String(), code}); got != want {
				t.Errorf("%s, %s: %+v\nby name: %+v", path, name, got, want)
			}
		}
	}
}

// lastRecord is where the last record of a pcap file begins.
func lastRecord(b []byte) (last int) {
	for at := 24; at < len(b); {
		last = at
		at += 16 + int(binary.LittleEndian.Uint32(b[at+8:]))
	}
	return last
}

func TestReportOfBrokenFiles(t *testing.T) {
	whole, err := os.ReadFile(fileOfDwdump)
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Clone(whole) // the last record claims more than can be
	binary.LittleEndian.PutUint32(long[lastRecord(long)+8:], 300_000)
	ethernet := bytes.Clone(whole)
	ethernet[20] = 1
	for name, tt := range map[string]struct {
		file []byte
		code int
		says string
	}{
		"ends in a record":   {whole[:len(whole)-10], exitPartial, "ends early"},
		"breaks in a record": {long, exitPartial, "300000"},
		"ends in its header": {whole[:20], exitUsage, "ends early"},
		"no messages":        {whole[:24], exitUsage, "no message"},
		"of a network card":  {ethernet, exitUsage, "link type 1"},
		"empty":              {nil, exitUsage, "not a whydrop record"},
		"broken gzip":        {[]byte{0x1f, 0x8b, 8, 0}, exitUsage, "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "drops.pcap")
			if err := os.WriteFile(path, tt.file, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, cmd := range []string{"report", "watch", "diagnose"} {
				r := here(t, cmd, "-r", path)
				if r.code != tt.code || !strings.Contains(r.err, tt.says) || (tt.code == exitPartial) != strings.Contains(r.out, "127.0.0.1:9") {
					t.Errorf("%s: exit status %d, want %d and %q\n%s", cmd, r.code, tt.code, tt.says, r.err)
				}
			}
		})
	}
}
