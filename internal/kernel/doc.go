// Package kernel says what the running kernel is: its BTF, the names of its
// drop reasons, its symbols, and which of its features this process may use.
// It is the only reader of BTF names, tracefs formats, /proc/kallsyms and files of
// symbols.
//
// It must not attach a probe, read a loss counter, or change anything: it
// mounts nothing (and looks into no directory that mounts itself), loads no
// module, writes no file, and never asks generic netlink for NET_DM, because
// that look-up loads the module. [Host.Checks] loads eBPF programs that do
// nothing, attaches them nowhere and closes them at once; [Names] keeps one that
// tells what the kernel calls an address, attached nowhere, until it is closed.
package kernel
