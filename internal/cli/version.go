package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// release is the version of whydrop; a release build sets it by -ldflags.
var release = "0.1.0-dev"

// version is what `whydrop version -j` prints.
type version struct {
	SchemaVersion int    `json:"schema_version"`
	Version       string `json:"version"`
	// Revision is the commit it was built from, empty if that is not known.
	Revision string `json:"revision"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// FileVersion is that of the files it reads and writes.
	FileVersion int `json:"file_version"`
}

func currentVersion() version {
	v := version{
		SchemaVersion: record.SchemaVersion, Version: release,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		FileVersion: record.FileVersion,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := currentVersion()
			if a.json {
				return report.JSON(a.out, v)
			}
			_, err := fmt.Fprintf(a.out, "whydrop %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			return err
		},
	}
}
