// Package archtest holds the rules of the source tree as a test: which room
// may import which, and why; what product code must not call; how large files
// and functions may be; that every package says what it is for.
//
// It is a test only and must not be imported. A rule is a row of data with
// its reason, and every rule has an example that breaks it.
package archtest
