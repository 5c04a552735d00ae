#!/usr/bin/env bash
# Makes the BPF objects and their Go files anew, in a temporary copy of the
# tree, with bpf2go and one version of clang.
# usage: tools/bpf.sh generate|check CLANG_VERSION
#   generate  puts them into the tree
#   check     fails where one differs by a byte from that of the tree
set -euo pipefail
export LC_ALL=C

mode=$1 want=$2
major=${want%%.*}
# For directives that name no compiler themselves.
export BPF2GO_CC=clang-$major BPF2GO_STRIP=llvm-strip-$major

for tool in "$BPF2GO_CC" "$BPF2GO_STRIP"; do
	have=$("$tool" --version | sed -nE 's/.*version ([0-9]+\.[0-9]+\.[0-9]+).*/\1/p' | sed -n 1p)
	if [[ $have != "$want" ]]; then
		echo "bpf.sh: $tool is version ${have:-unknown}; the BPF objects are made with $want and no other" >&2
		echo "        (Debian 12 and 13 have it as the packages clang-$major and llvm-$major)" >&2
		exit 1
	fi
done

# objects lists what bpf2go writes, in the current directory.
objects() {
	find . \( -name .git -o -name .cache \) -prune -o -type f \
		\( -name '*_bpfel.o' -o -name '*_bpfel.go' -o -name '*_bpfeb.o' -o -name '*_bpfeb.go' \) -print | sort
}

cd "$(dirname "$0")/.."
tree=$PWD
committed=$(objects)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar --exclude=./.git --exclude=./.cache -cf - . | tar -xf - -C "$copy"
cd "$copy"
xargs -r rm -f <<<"$committed"
go generate -run bpf2go ./...
made=$(objects)
if [[ -z $made ]]; then
	echo "bpf.sh: no go:generate directive runs bpf2go" >&2
	exit 1
fi

case $mode in
generate)
	(cd "$tree" && xargs -r rm -f <<<"$committed")
	for f in $made; do
		cp --no-preserve=all "$f" "$tree/$f"
		echo "$f"
	done
	;;
check)
	bad=0
	for f in $(sort -u <<<"$made"$'\n'"$committed"); do
		if [[ ! -e $tree/$f ]]; then
			echo "bpf-check: $f is missing from the tree; run make bpf" >&2
		elif [[ ! -e $f ]]; then
			echo "bpf-check: $f is in the tree, but no go:generate directive makes it" >&2
		elif ! cmp -s "$tree/$f" "$f"; then
			echo "bpf-check: $f is not what clang $want makes ($(wc -c <"$tree/$f") bytes; made anew $(wc -c <"$f")); run make bpf" >&2
		else
			continue
		fi
		bad=1
	done
	if ((bad)); then
		exit 1
	fi
	echo "bpf-check: $(wc -l <<<"$made") files are byte for byte what clang $want makes"
	;;
*)
	echo "bpf.sh: the mode is generate or check, not $mode" >&2
	exit 2
	;;
esac
