package counter

import "strings"

// quote makes one word of a POSIX shell of s. The kernel allows nearly every
// byte in the name of a device (net/core/dev.c, dev_valid_name), and a person
// may copy the command.
func quote(s string) string {
	plain := s != ""
	for _, r := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-+:", r) {
			plain = false
		}
	}
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
