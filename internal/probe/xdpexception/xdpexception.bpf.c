// SPDX-License-Identifier: GPL-2.0-only
//go:build ignore

/*
 * Counts the packets that an XDP program lost without wanting to: it failed
 * itself (XDP_ABORTED), returned an action that does not exist, or sent a packet
 * elsewhere and that did not work. The kernel tells of them by two tracepoints
 * and frees the packets as it does those that a program drops on purpose.
 *
 * Nothing here runs for a packet that went well.
 */
#include "skb.h"

struct bpf_prog_aux {
	__u32 id;
} __co_re;

struct bpf_prog {
	struct bpf_prog_aux *aux;
} __co_re;

#define ENTRIES 1024
#define MAX_ERRNO 4095

struct failure_key {
	__u32 netns;
	__u32 ifindex;
	__u32 prog; /* its id */
	__s32 code; /* an action, or negative: the error of a redirect */
};

struct failure {
	__u64 packets;
	char device[16];
};

/* How many actions the kernel has names for; set before load. */
const volatile __u32 actions;

/* Packets for which the table had no room. */
__u64 table_full;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ENTRIES);
	__type(key, struct failure_key);
	__type(value, struct failure);
} failures SEC(".maps");

/* Always by the helper: none of these pointers is promised to be one. */
#define PEEK(dst, ptr, field)                                                  \
	bpf_probe_read_kernel(&(dst), sizeof(dst), &(ptr)->field)

static __always_inline int count(struct net_device *dev, struct bpf_prog *prog,
				 __s32 code)
{
	struct failure_key k = {.code = code};
	struct failure fresh = {}, *f;
	struct bpf_prog_aux *aux = NULL;
	struct net *net = NULL;

	PEEK(k.ifindex, dev, ifindex);
	PEEK(net, dev, nd_net.net);
	PEEK(k.netns, net, ns.inum);
	PEEK(aux, prog, aux);
	PEEK(k.prog, aux, id);
	f = bpf_map_lookup_elem(&failures, &k);
	if (!f) {
		PEEK(fresh.device, dev, name);
		/* Another CPU may be quicker; then its entry is there. */
		bpf_map_update_elem(&failures, &k, &fresh, BPF_NOEXIST);
		f = bpf_map_lookup_elem(&failures, &k);
	}
	if (f)
		__sync_fetch_and_add(&f->packets, 1);
	else
		__sync_fetch_and_add(&table_full, 1);
	return 0;
}

/* Arguments: dev, prog, act. What has no name counts as one: it may be any number. */
SEC("raw_tracepoint/xdp_exception")
int xdp_exception_raw(__u64 *ctx)
{
	__u32 act = ctx[2];

	return count((struct net_device *)ctx[0], (struct bpf_prog *)ctx[1],
		     act < actions ? act : actions);
}

/* Arguments: dev, prog, target, err, and more that changed over the years. */
SEC("raw_tracepoint/xdp_redirect_err")
int xdp_redirect_err_raw(__u64 *ctx)
{
	__s32 err = ctx[3];

	return count((struct net_device *)ctx[0], (struct bpf_prog *)ctx[1],
		     err < 0 && err >= -MAX_ERRNO ? err : -MAX_ERRNO);
}

char _license[] SEC("license") = "GPL";
