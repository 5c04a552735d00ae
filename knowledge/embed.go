// Package knowledge holds what whydrop knows, as data: the causes of packet
// loss (causes), what each drop reason means (reasons), what a drop means by
// its location (locations), what the kernel's counters count (counters), and
// where to look next by station (stations.yaml).
//
// It must NOT hold any Go but this file: packages that use the data load and
// check it themselves (internal/diagnose).
package knowledge

import "embed"

// FS holds all the data, as the README.md of each folder describes it, and once more
// in compiled.jsonl, which is read several times faster (`make knowledge`).
//
//go:embed causes compiled.jsonl reasons/*.yaml locations/*.yaml counters/*.yaml stations.yaml
var FS embed.FS
