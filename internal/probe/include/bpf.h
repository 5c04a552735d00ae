/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a BPF program here needs from the compiler and the kernel's helper
 * table, and nothing else. The helper numbers are ABI: enum bpf_func_id in
 * include/uapi/linux/bpf.h.
 */
#ifndef WHYDROP_BPF_H
#define WHYDROP_BPF_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef _Bool bool;

#define NULL ((void *)0)
#define true 1
#define false 0

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A field access through such a type is relocated to the running kernel. */
#define __co_re __attribute__((preserve_access_index))

/* Map definitions in the style of BTF maps: a pointer's type carries a number. */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_RB_NO_WAKEUP = 1 << 0,
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_get_current_comm)(void *buf, __u32 size) = (void *)16;
static long (*bpf_get_stack)(void *ctx, void *buf, __u32 size, __u64 flags) = (void *)67;
static long (*bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *dst, __u32 size, const void *src) = (void *)115;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;

/* Kinds of __builtin_preserve_field_info: BPF_FIELD_BYTE_OFFSET, _EXISTS. */
#define field_offset(field) __builtin_preserve_field_info(field, 0)
#define field_exists(field) __builtin_preserve_field_info(field, 2)

/* The id of a type in the running kernel's BTF: BPF_TYPE_ID_TARGET. */
#define kernel_type_id(type) __builtin_btf_type_id(*(type *)0, 1)

/* A kernel function, resolved at load; weak: its absence is no error. */
#define __kfunc_weak __attribute__((section(".ksyms"), weak))

/* Keeps the compiler from moving memory accesses across it. */
#define barrier() asm volatile("" ::: "memory")

#define MIN(a, b) ((a) < (b) ? (a) : (b))

#endif
