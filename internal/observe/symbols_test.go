package observe

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/record"
)

// hiddenHost is a host whose kallsyms hides addresses, with a System.map.
func hiddenHost(t *testing.T) (kernel.Host, string) {
	t.Helper()
	h := kernel.Host{Root: t.TempDir()}
	path := filepath.Join(h.Root, "System.map")
	for name, text := range map[string]string{
		path: "ffffffff81000000 T _text\nffffffff81000100 T ip_rcv\nffffffff81000200 T udp_rcv\nffffffff81000300 T _etext\n",
		filepath.Join(h.Root, "proc", "kallsyms"): "0000000000000000 T _text\n0000000000000000 T ip_rcv\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h, path
}

var okSource = record.Source{Name: SourceDropmon, State: record.SourceOK}

// The words of the drop monitor name places until they have placed the file,
// which then has the whole names.
func TestSymbolsPlacedByAlerts(t *testing.T) {
	host, path := hiddenHost(t)
	s := newSymbols(host, path)
	var refused *SymbolsError
	if err := s.read(false); !errors.As(err, &refused) || !errors.Is(err, kernel.ErrNotPlaced) || !strings.Contains(err.Error(), "--source dropmon:packet") {
		t.Fatalf("without alerts: %v", err)
	}
	if err := s.read(true); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	n := dropmonNames{symbols: s.named(), hidden: s.hidden}
	if n.hidden == nil {
		t.Error("names are not said to be hidden")
	}
	if src, blind := s.tell(okSource, nil); src.State != record.SourceDegraded || len(blind) != 1 || blind[0].What != BlindNames {
		t.Errorf("before: %+v, %+v", src, blind)
	}
	for _, c := range []struct {
		pc         uint64
		text, want string
	}{
		{0xffffffff8a000110, "", "0xffffffff8a000110"},
		{0xffffffff8a000110, "ip_rcv+0x10/0x100", "ip_rcv+0x10"},
		{0xffffffff8a000210, "udp_rcv+0x10/0x100", "udp_rcv+0x10"},
		{0xffffffff8a000220, "", "udp_rcv+0x20"},
		{0xffffffffc0000040, "nft_do_chain+0x40/0x100 [nf_tables]", "nft_do_chain+0x40 [nf_tables]"},
		{0xffffffffc0000050, "", "nft_do_chain+0x50 [nf_tables]"},
		{0xffffffffc1000040, "a_function_of_such_a_long_name_that_it_", "a_function_of_such_a_long_name_that_it_…+?"},
	} {
		if got := n.location(c.pc, c.text).String(); got != c.want {
			t.Errorf("%#x, called %q, is %s, want %s", c.pc, c.text, got, c.want)
		}
	}
	if n.hidden != nil {
		t.Errorf("names are still said to be hidden: %v", n.hidden)
	}
	src, blind := s.tell(okSource, nil)
	if src.State != record.SourceOK || blind != nil || !strings.Contains(src.Why, "functions by "+path+": 3 functions, 0x9000000 above the file's addresses") {
		t.Errorf("after: %+v, %+v", src, blind)
	}
}

// A kernel that calls places otherwise than the file is another one: from then
// on its own words are used.
func TestSymbolsContradicted(t *testing.T) {
	host, path := hiddenHost(t)
	s := newSymbols(host, path)
	if err := s.read(true); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	n := dropmonNames{symbols: s.named(), hidden: s.hidden}
	n.location(0xffffffff8a000110, "ip_rcv+0x10/0x100")
	if got := n.location(0xffffffff8a001210, "udp_rcv+0x10/0x100").String(); got != "udp_rcv+0x10" {
		t.Errorf("place %s", got)
	}
	src, blind := s.tell(okSource, nil)
	if src.State != record.SourceDegraded || !strings.Contains(src.Why, "is not of this kernel") || len(blind) != 1 {
		t.Errorf("%+v, %+v", src, blind)
	}
}

func TestSymbolsNotAskedFor(t *testing.T) {
	host, path := hiddenHost(t)
	none := newSymbols(host, kernel.SymbolsNone)
	if err := none.read(false); err != nil || none.named() != nil || none.hidden != nil {
		t.Errorf("none: %v, %v", err, none.hidden)
	}
	if src, blind := none.tell(okSource, nil); src != okSource || len(blind) != 1 || !strings.Contains(blind[0].Why, "--symbols none") {
		t.Errorf("none: %+v, %+v", src, blind)
	}
	own := newSymbols(host, "")
	if err := own.read(false); err != nil || own.named() != nil || !errors.Is(own.hidden, kernel.ErrAddressesHidden) {
		t.Errorf("the kernel's own: %v, %v", err, own.hidden)
	}
	if src, blind := own.tell(okSource, nil); src != okSource || blind != nil {
		t.Errorf("the kernel's own: %+v, %+v", src, blind)
	}
	for _, s := range []*symbols{none, own} {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
	var refused *SymbolsError
	if err := newSymbols(host, path+".gone").read(true); !errors.As(err, &refused) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// The kernel's table is read for the first address that needs it. That this fails
// then is said of the source.
func TestTableFailsLater(t *testing.T) {
	h := kernel.Host{Root: t.TempDir()}
	path := filepath.Join(h.Root, "proc", "kallsyms")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	const first = "ffffffff81000000 T _text\nffffffff81000100 T ip_rcv\n"
	if err := os.WriteFile(path, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSymbols(h, kernel.SymbolsKallsyms)
	if err := s.read(false); err != nil || s.hidden != nil {
		t.Fatal(err, s.hidden)
	}
	defer s.close()
	if src, blind := s.tell(okSource, nil); src != okSource || blind != nil {
		t.Errorf("before: %+v, %+v", src, blind)
	}
	if err := os.WriteFile(path, []byte(first+"broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.Resolve(0xffffffff81000110).Symbol; got != "" {
		t.Errorf("named %q by a broken table", got)
	}
	src, blind := s.tell(okSource, nil)
	if src.State != record.SourceDegraded || !strings.Contains(src.Why, "line 3") || len(blind) != 1 || blind[0].What != BlindNames {
		t.Errorf("after: %+v, %+v", src, blind)
	}
}
