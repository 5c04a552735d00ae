package skbdrop

// The object is committed; clang is needed only to change it. `make bpf` calls
// this with the version of clang that the Makefile pins.
//go:generate go tool bpf2go -target bpfel -type drop_key -type slot -type event -type cpu_state -type trap -go-package skbdrop skbdrop skbdrop.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I../include
