package kernel

import (
	"cmp"
	"slices"
	"strings"
)

// Nearest are at most n of the names that a person may have meant who wrote
// wanted: those that contain it, or differ from it in a third of its letters,
// nearest first. They are compared as plain makes them.
func Nearest(wanted string, names []string, n int, plain func(string) string) []string {
	wanted = plain(wanted)
	far := map[string]int{}
	near := []string{}
	for _, name := range names {
		p := plain(name)
		d := distance(wanted, p)
		if len(wanted) >= 3 && strings.Contains(p, wanted) {
			d = min(d, 1)
		}
		if _, twice := far[name]; !twice && d <= max(1, len(wanted)/3) {
			far[name] = d
			near = append(near, name)
		}
	}
	slices.SortStableFunc(near, func(a, b string) int { return cmp.Compare(far[a], far[b]) })
	return near[:min(len(near), n)]
}

// distance is Levenshtein's: how many bytes have to be changed, added or left
// out to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
