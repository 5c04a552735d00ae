#!/bin/sh
# Makes dwarf4.elf, dwarf5.elf and System.map anew from the sources beside it.
# The committed ones are of gcc 12.2.0 and binutils 2.40 of Debian 12, amd64.
set -eu
cd "$(dirname "$0")"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for version in 4 5; do
	for source in net/core/skb net/ipv4/input; do
		# As in a build in a directory of its own: sources are at ../…
		gcc -O2 -g -gdwarf-$version -gno-as-locview-support -m64 -mcmodel=kernel -ffreestanding -fno-pic \
			-fno-asynchronous-unwind-tables -fcf-protection=none -Iinclude/linux \
			-ffile-prefix-map="$PWD=/build/linux" -c -o "$out/$(basename $source).o" "$PWD/$source.c"
	done
	ld -T vmlinux.lds --build-id=sha1 -e _stext -o dwarf$version.elf "$out/skb.o" "$out/input.o"
done
nm -n dwarf5.elf >System.map
