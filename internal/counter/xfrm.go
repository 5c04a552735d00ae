package counter

// parseXfrm makes counters of /proc/net/xfrm_stat (net/xfrm/xfrm_proc.c): a
// line for each. The file is there where the kernel has XFRM_STATISTICS.
func parseXfrm(text []byte, source string) ([]Value, error) {
	return parsePairs(text, source, func(name string) (string, string) {
		return "xfrm." + name, "cat " + source
	})
}
