#!/usr/bin/env bash
# Installs the Debian packages behind commands that are missing, and only those.
# usage: tools/need.sh command:package …
set -euo pipefail

missing=()
for need in "$@"; do
	if ! command -v "${need%%:*}" >/dev/null && [[ " ${missing[*]} " != *" ${need#*:} "* ]]; then
		missing+=("${need#*:}")
	fi
done
if ((${#missing[@]} == 0)); then
	exit 0
fi

if ! command -v apt-get >/dev/null; then
	echo "need.sh: this is no Debian; install what Debian calls: ${missing[*]}" >&2
	exit 1
fi
root=()
if ((EUID != 0)); then
	if ! command -v sudo >/dev/null; then
		echo "need.sh: neither root nor sudo; as root: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	root=(sudo)
fi

apt() {
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" </dev/null
}
echo "installing ${missing[*]}" >&2
apt update
apt install -y --no-install-recommends "${missing[@]}" >/dev/null
for need in "$@"; do
	if ! command -v "${need%%:*}" >/dev/null; then
		echo "need.sh: ${need#*:} is installed but brings no command ${need%%:*}" >&2
		exit 1
	fi
done
