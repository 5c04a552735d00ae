package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
)

// knowledgeHelp explains --knowledge where there is room for it.
const knowledgeHelp = `Causes of your own are added to those that are built in, or take the place of one
with the same id: from /etc/whydrop/causes.d, then from each --knowledge DIR. Such
a directory holds a folder for each cause (ID/cause.yaml), or has the form of the
whole knowledge base (causes, reasons, locations, counters).
"whydrop knowledge lint DIR" checks it.`

// knowledgeFlag adds --knowledge to a command and all below it.
func (a *app) knowledgeFlag(c *cobra.Command) {
	c.PersistentFlags().StringArrayVar(&a.knowledgeDirs, "knowledge", nil, "add the causes of this `directory`, see whydrop --help; may be repeated")
}

// ownCauses is read on every run, if it is there. It is a variable for tests.
var ownCauses = "/etc/whydrop/causes.d"

// ownLayer is a directory of somebody's own causes.
type ownLayer struct {
	dir string
	fs.FS
}

// layerOf takes a directory that has the form of the knowledge base, or holds
// folders of causes.
func layerOf(dir string) (ownLayer, error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return ownLayer{}, err
	case !info.IsDir():
		return ownLayer{}, fmt.Errorf("%s: not a directory", dir)
	}
	root := os.DirFS(dir)
	base := isBase(root)
	if err := readable(root, base); err != nil {
		return ownLayer{}, fmt.Errorf("read causes in %s: %w", dir, err)
	}
	if base {
		return ownLayer{dir, root}, nil
	}
	return ownLayer{dir, diagnose.CausesIn(root)}, nil
}

// readable says why a folder of a directory cannot be read. What looks for files
// takes such a folder for an empty one, and what the layers below have in its
// place would be taken.
func readable(root fs.FS, base bool) error {
	folders := []string{"."}
	if base {
		folders = []string{"causes", "reasons", "locations", "counters"}
	}
	for _, folder := range folders {
		entries, err := fs.ReadDir(root, folder)
		if err != nil && !absent(err) {
			return err
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				continue
			}
			if _, err := fs.ReadDir(root, path.Join(folder, e.Name())); err != nil && !absent(err) {
				return err
			}
		}
	}
	return nil
}

// absent says whether an error is that there is no such directory.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// holds says why a directory adds nothing.
func (l ownLayer) holds() error {
	if l.has("causes/*/cause.yaml", "reasons/*.yaml", "locations/*.yaml", "counters/*.yaml") {
		return nil
	}
	if _, err := os.Stat(filepath.Join(l.dir, "cause.yaml")); err == nil {
		return fmt.Errorf("%s: is the folder of one cause; name the directory that holds it", l.dir)
	}
	return fmt.Errorf("%s: neither a knowledge base nor a directory of causes (no ID/cause.yaml, no causes/ID/cause.yaml)", l.dir)
}

// has says whether there is a file of one of these patterns.
func (l ownLayer) has(patterns ...string) bool {
	return slices.ContainsFunc(patterns, func(files string) bool {
		found, err := fs.Glob(l.FS, files)
		return err == nil && len(found) > 0
	})
}

// isBase says whether a directory has the form of the whole base: one of its
// folders, and not a cause of that name.
func isBase(root fs.FS) bool {
	for _, name := range []string{"causes", "reasons", "locations", "counters"} {
		if _, err := fs.Stat(root, name+"/cause.yaml"); err == nil {
			continue
		}
		if info, err := fs.Stat(root, name); err == nil && info.IsDir() {
			return true
		}
	}
	return false
}

// ownLayers are the directories that this run takes causes from, the lowest first.
func (a *app) ownLayers() ([]ownLayer, error) {
	var layers []ownLayer
	switch own, err := layerOf(ownCauses); {
	case err == nil:
		layers = append(layers, own)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, usage(fmt.Errorf("read causes of this host: %w", err))
	}
	for _, dir := range a.knowledgeDirs {
		l, err := layerOf(dir)
		if err == nil {
			err = l.holds()
		}
		if err != nil {
			return nil, usage(fmt.Errorf("--knowledge: %w", err))
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// overlaid is the built-in base with layers upon it.
func overlaid(layers []ownLayer) fs.FS {
	all := []fs.FS{knowledge.FS}
	for _, l := range layers {
		all = append(all, l.FS)
	}
	return diagnose.Overlay(all...)
}

// loadKnowledge reads all that this run knows: what is built in, and directories of
// somebody's own. An error says in which of these which file is not good.
func (a *app) loadKnowledge() (*diagnose.Knowledge, error) {
	return a.loadLayers(loadKnowledge, diagnose.Load)
}

// loadTriage reads as much of it as classing drops needs.
func (a *app) loadTriage() (*diagnose.Knowledge, error) {
	return a.loadLayers(loadTriage, diagnose.LoadTriage)
}

// loadCounters reads the catalogue of counters.
func (a *app) loadCounters() (*diagnose.Knowledge, error) {
	return a.loadLayers(loadCounters, diagnose.LoadCounters)
}

// loadLayers reads the built-in base alone where there is nothing else.
func (a *app) loadLayers(alone func() (*diagnose.Knowledge, error), load func(fs.FS) (*diagnose.Knowledge, error)) (*diagnose.Knowledge, error) {
	layers, err := a.ownLayers()
	if err != nil {
		return nil, err
	}
	if len(layers) == 0 {
		return alone()
	}
	k, err := load(overlaid(layers))
	if err == nil {
		return k, nil
	}
	// Which one is to blame: the first with which it is not good.
	for i := range layers {
		if _, err := load(overlaid(layers[:i+1])); err != nil {
			return nil, usage(fmt.Errorf("%s: %w", filepath.Clean(layers[i].dir), err))
		}
	}
	return nil, err
}

// lintDir checks a directory: of the form of the whole base, or causes of
// somebody's own, which are checked upon the built-in base.
func (a *app) lintDir(dir string) error {
	l, err := layerOf(dir)
	if err != nil {
		return usage(err)
	}
	if _, err := fs.Stat(l.FS, "reasons"); err == nil {
		return a.lint(l.FS, dir) // a whole base: it stands alone
	}
	if err := l.holds(); err != nil {
		return usage(err)
	}
	return a.lint(overlaid([]ownLayer{l}), dir)
}

// loadKnowledge reads the built-in base.
func loadKnowledge() (*diagnose.Knowledge, error) { return builtIn() }

// builtIn is read once: it does not change, and whoever has it does not change
// it either. Tests have seen to it that Load accepts it.
var builtIn = sync.OnceValues(func() (*diagnose.Knowledge, error) { return loaded(diagnose.LoadAccepted) })

// loadTriage reads as much of it as classing drops needs.
func loadTriage() (*diagnose.Knowledge, error) { return loaded(diagnose.LoadTriage) }

// loadCounters reads the catalogue of counters.
func loadCounters() (*diagnose.Knowledge, error) { return loaded(diagnose.LoadCounters) }

func loaded(load func(fs.FS) (*diagnose.Knowledge, error)) (*diagnose.Knowledge, error) {
	k, err := load(knowledge.FS)
	if err != nil {
		return nil, fmt.Errorf("read built-in knowledge: %w", err)
	}
	return k, nil
}
