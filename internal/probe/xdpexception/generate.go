package xdpexception

// The object is committed; clang is needed only to change it. `make bpf` calls
// this with the version of clang that the Makefile pins.
//go:generate go tool bpf2go -target bpfel -type failure_key -type failure -go-package xdpexception xdpexception xdpexception.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I../include
