package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// room is a folder of product code, with all folders below it, and what its
// code may import besides itself. A folder that ends in /* stands for each
// folder in it.
type room struct {
	dir string
	// may are the rooms it may import.
	may []string
	// std are the packages of the standard library it may import; nil is all.
	std []string
	// modules are the other modules it may import; nil is all in go.mod.
	modules []string
	// never are imports forbidden in spite of the above, with those below.
	never []string
	// why is the reason, printed with every violation.
	why string
}

const (
	mod    = "internal/"
	ebpf   = "github.com/cilium/ebpf"
	yaml   = "go.yaml.in/yaml"
	expr   = "github.com/expr-lang/expr"
	txtar  = "golang.org/x/tools/txtar"
	whyRaw = "counters and facts must be readable where BPF is not, so nothing of ebpf may come with them, and each is one source that observe puts together"
)

// none is an empty list that is not nil: nothing may be imported.
var none = []string{}

// pureStd are the packages of the standard library that neither look at the
// host nor change it.
var pureStd = []string{
	"bufio", "bytes", "cmp", "container/heap", "container/list", "embed",
	"encoding", "encoding/base64", "encoding/binary", "encoding/hex",
	"encoding/json", "errors", "fmt", "hash/crc64", "hash/fnv", "html", "io", "io/fs",
	"iter", "maps", "math", "math/bits", "net/netip", "path", "regexp",
	"slices", "sort", "strconv", "strings", "sync", "text/tabwriter",
	"text/template", "time", "unicode", "unicode/utf16", "unicode/utf8",
}

// rooms is the direction of imports. A new room needs a row.
var rooms = []room{
	{
		dir: "cmd", may: []string{mod + "cli"},
		why: "main only hands over to cli: what it did itself no test could call",
	},
	{
		dir: mod + "cli",
		may: []string{
			mod + "observe", mod + "diagnose", mod + "report", mod + "shell", mod + "lab",
			mod + "kernel", mod + "filter", mod + "packet", mod + "netns", "record", "knowledge",
			mod + "netlinkpcap", mod + "probe/dropmon",
		},
		never: []string{ebpf},
		why:   "cli wires and prints; events, counters and facts reach it through observe, which accounts for every drop",
	},
	{
		dir: mod + "observe",
		may: []string{
			mod + "probe/*", mod + "counter", mod + "fact", mod + "owner", mod + "netns",
			mod + "kernel", mod + "filter", mod + "packet", "record",
		},
		why: "observe fills a record and draws no conclusion from it: whoever reads the record later must come to the same one",
	},
	{
		dir: mod + "diagnose", may: []string{"record", "knowledge"}, std: pureStd, modules: []string{yaml, expr, txtar},
		why: "diagnose is pure: the same record must give the same findings on another host, in another year and in a test",
	},
	{
		dir: mod + "report", may: []string{"record", "knowledge"}, std: pureStd, modules: []string{yaml},
		why: "report is pure: it prints what the record and its findings say, the same on every host, and computes no finding",
	},
	{
		dir: mod + "shell", may: []string{mod + "observe", mod + "probe/dropmon", mod + "report", mod + "kernel", mod + "packet", "record"},
		why: "shell is dropwatch's face of the kernel's drop monitor, whose alerts it shows one by one and as they are; everything else it sees through observe",
	},
	{
		dir: mod + "lab", may: []string{mod + "netns", "record"},
		why: "lab provokes losses and knows their true number from itself and the kernel; what it borrowed from the code it checks would be wrong with it",
	},
	{
		dir: mod + "probe/*", may: []string{mod + "kernel", mod + "packet", mod + "filter", mod + "netns", "record"},
		why: "a probe is one source of events and must work and fail alone: never another probe; observe puts them together",
	},
	{
		dir: mod + "netlinkpcap", may: []string{mod + "probe/dropmon", mod + "packet", "record"}, never: []string{"os", ebpf},
		why: "netlinkpcap reads and writes a file of another host's alerts: of the probe it needs the codec, of this host nothing",
	},
	{dir: mod + "counter", may: []string{mod + "kernelnet", mod + "netns", "record"}, never: []string{ebpf}, why: whyRaw},
	{dir: mod + "fact", may: []string{mod + "kernelnet", mod + "netns", "record"}, never: []string{ebpf}, why: whyRaw},
	{
		dir: mod + "kernelnet", may: none, never: []string{ebpf},
		why: "kernelnet is what counters and facts both need of the kernel, bytes and nothing about records: it must fit below either",
	},
	{
		dir: mod + "owner", may: []string{mod + "netns", "record"},
		why: "owner maps a socket to a process and its unit; it must not know who asks",
	},
	{
		dir: mod + "filter", may: []string{"record"}, std: pureStd, modules: none,
		why: "a filter means what its text says: the same on every host and of every record, applied by others",
	},
	{
		dir: mod + "kernel", may: []string{"record"},
		why: "kernel says what this kernel is to everybody above, so it must need none of them",
	},
	{
		dir: mod + "netns", may: []string{"record"}, never: []string{ebpf},
		why: "netns serves counters and facts, which must work without BPF",
	},
	{
		dir: mod + "packet", may: []string{"record"}, never: []string{"os", ebpf},
		why: "packet decodes bytes and nothing else: it is used in tests and on captures of other hosts",
	},
	{
		dir: "record", may: none, modules: none, never: []string{"os", "net", "syscall"},
		why: "record is public and the only thing that diagnose and report know of a host: standard library only, and it looks at no host itself",
	},
	{
		dir: "knowledge", may: none, std: []string{"embed", "io/fs"}, modules: none,
		why: "knowledge is data: whoever adds a cause writes YAML and Markdown, no Go",
	},
}

// importViolations says which imports of product code break the direction.
func importViolations(t *tree) []string {
	var bad []string
	for _, f := range t.files {
		if !f.product() {
			continue
		}
		r := roomOf(f.dir)
		if r == nil {
			bad = append(bad, fmt.Sprintf("%s: its folder has no row in the rooms of internal/archtest: say there what it may import, and why", f.path))
			continue
		}
		for _, imp := range f.imports {
			if !r.allows(f.dir, imp) {
				bad = append(bad, fmt.Sprintf("%s imports %s: %s", f.path, imp, r.why))
			}
		}
	}
	return bad
}

// roomOf is the room that a folder lies in, or nil.
func roomOf(dir string) *room {
	i := slices.IndexFunc(rooms, func(r room) bool { return r.place(dir) != "" })
	if i < 0 {
		return nil
	}
	return &rooms[i]
}

// place is the folder of this room that dir is or lies in, or empty: r.dir
// itself, or the folder that its * stands for.
func (r *room) place(dir string) string {
	parent, star := strings.CutSuffix(r.dir, "/*")
	if !star {
		if under(dir, r.dir) {
			return r.dir
		}
		return ""
	}
	rest, ok := strings.CutPrefix(dir, parent+"/")
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return path.Join(parent, first)
}

// under says whether dir is top or lies below it.
func under(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }

// allows says whether a package of this room, in the folder from, may import
// imp.
func (r *room) allows(from, imp string) bool {
	if slices.ContainsFunc(r.never, func(n string) bool { return imp == n || n != "net" && under(imp, n) }) {
		return false
	}
	first, _, _ := strings.Cut(imp, "/")
	switch {
	case first == "cmd" || first == "internal" || first == "record" || first == "knowledge":
		if own := r.place(from); own != "" && under(imp, own) {
			return true
		}
		return slices.ContainsFunc(r.may, func(m string) bool { return (&room{dir: m}).place(imp) != "" })
	case strings.Contains(first, "."):
		return r.modules == nil || slices.ContainsFunc(r.modules, func(m string) bool { return under(imp, m) })
	default:
		return r.std == nil || slices.Contains(r.std, imp)
	}
}
