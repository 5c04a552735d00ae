// Package knowledge holds what whydrop knows, as data: what each drop reason
// means (reasons) and what a drop means by its location (locations).
//
// It must NOT hold any Go but this file: packages that use the data load and
// check it themselves (internal/diagnose).
package knowledge

import "embed"

// FS holds reasons/*.yaml and locations/*.yaml.
//
//go:embed reasons/*.yaml locations/*.yaml
var FS embed.FS
