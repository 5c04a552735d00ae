// SPDX-License-Identifier: GPL-2.0-only
//go:build ignore

/*
 * Counts every skb that the kernel drops, and samples a few of them whole.
 *
 * Hot path: find the slot of this drop's key in the CPU's own stretch of the
 * table, add one. No atomics, no clock, no locks: a stretch has one writer at
 * a time. A program that interrupts another one on the same CPU (possible
 * only on kernels without a recursion guard, see LEVELS) gets a stretch of
 * its own.
 */
#include "skb.h"

#define LEVELS 3	/* task, softirq, hardirq */
#define PENDING 256	/* packets that were told of but not freed yet */
#define TRAP_SLOTS 128	/* keys of hardware drops that a CPU can count */
#define TRAP_NAME 64	/* bytes of a name; the longest have 34 */
#define TRAP_TICKS 3	/* a trap's twin is looked for that long: 0.2 s and more */
#define PROBES 8	/* slots tried before a key counts as "table full" */
#define SNAP 192	/* bytes of headers in a sample */
#define FRAMES 24	/* stack frames in a sample */
#define NO_HEADER 0xffff /* skb->mac_header while unset (skbuff.h) */

/*
 * PROC_DYNAMIC_FIRST and the first inodes of the initial namespaces lie just
 * above this (fs/proc/generic.c, include/linux/proc_ns.h). Used to reject what
 * is read through a skb->dev that is no device: the field shares its memory
 * with an rb_node and dev_scratch (include/linux/skbuff.h).
 */
#define NETNS_INUM_MIN 0xe0000000u
/* And not so high that it could be the upper half of a kernel pointer. */
#define NETNS_INUM_MAX 0xfffeffffu

/* These follow linux/if_arp.h, if_ether.h and socket.h: ABI. */
#define ARPHRD_ETHER 1
#define ARPHRD_LOOPBACK 772
#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

/* BPF_TCP_*, which the kernel holds equal to its own (uapi/linux/bpf.h). */
#define TCP_TIME_WAIT 6
#define TCP_NEW_SYN_RECV 12

enum direction { DIR_UNKNOWN, DIR_RX, DIR_TX, DIR_FWD, DIR_HARDWARE };
enum start { START_NONE, START_LINK, START_NETWORK };
enum sk_from { SK_NONE, SK_RX, SK_SKB };

struct drop_key {
	__u64 location; /* with DIR_HARDWARE: the key of struct trap */
	__u32 reason;
	__u32 netns;
	__u32 ifindex;
	__u16 ethertype; /* host order */
	__u8 ip_proto;
	__u8 direction;
};

/*
 * The same as three words: a key is made, hashed and compared in registers.
 * (Written to the stack by field and read back by word it would wait for the
 * stores each time.)
 */
struct words {
	__u64 location;
	__u64 reason_netns;
	__u64 rest;
};

struct slot {
	struct drop_key key;
	__u64 drops;
	__u64 bytes;
	__u32 epoch;  /* when tokens were last granted */
	__u32 tokens; /* samples this key may still take */
	__u64 pad[2]; /* one cache line */
};

struct event {
	__u64 time_ns;
	struct drop_key key;
	__u64 sk_inode;
	__u64 sk_cookie;
	__u32 len;
	__u32 data_len;
	__u32 truesize;
	__u32 mark;
	__u32 cpu;
	__u32 pid;
	__u32 tid;
	__s32 stack_bytes; /* negative: an errno */
	__u16 gso_segs;
	__u16 gso_size;
	__u16 queue;
	__u16 vlan_tci;
	__u16 vlan_proto; /* host order; 0 without a tag */
	__u16 sk_family;
	__u16 sk_protocol;
	__u16 snap_bytes;
	__u8 sk_state;
	__u8 sk_from;
	__u8 start;
	__u8 pad[5];
	char comm[16];
	char dev[16];
	__u64 stack[FRAMES];
	__u8 snap[SNAP];
};

struct cpu_state {
	__u64 rx_sk; /* passed through memory, see read_rx_sk */
	__u64 table_full;
	__u64 table_full_bytes;
	__u64 samples_lost;
	__u64 too_deep;
	__u32 depth;
	__u32 pad;
};

/*
 * What was said of a packet that will be freed soon on this CPU: by a qdisc, or
 * with a time by hardware.
 */
struct pending {
	__u64 skb;
	__u64 sum; /* packet_sum() */
	__u64 time_ns;
	__u32 reason;
	__u32 pad;
};

/* The words of a devlink trap. */
struct trap {
	char name[TRAP_NAME];
	char group[TRAP_NAME];
};

/* Set before load, then constant: the verifier removes what they rule out. */
const volatile __u32 kfree_skb_args; /* 2, 3 or 4 */
const volatile __u32 may_nest;	     /* no recursion guard on this kernel */
const volatile __u32 slots_per_cpu;  /* a power of two, per level */
const volatile __u32 have_cast;	     /* bpf_rdonly_cast exists: 6.2 */
const volatile __u32 qdisc_drop;     /* SKB_DROP_REASON_QDISC_DROP, see qdisc_reason */
const volatile __u32 have_traps; /* trap_report_raw is attached */
const volatile __u32 trap_base;	 /* where its stretches of the table begin */
const volatile __u64 twin_ns;	 /* how long after its report a packet is the same */
const volatile __u32 burst;
const volatile __u32 refill;

/* Advanced by the reader, so that samples flow only as fast as they are read. */
volatile __u32 epoch;

/* Until that epoch a packet that is freed may be one that hardware told of. */
volatile __u32 trapped_until;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set before load */
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PENDING);
	__type(key, __u32);
	__type(value, struct pending);
} pending SEC(".maps");

/* By a hash of both words. An entry is written once and stays. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct trap);
} traps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set before load */
} samples SEC(".maps");

/* Makes the type known to the loader, which checks its size. */
const struct event *unused_event SEC("unused") = NULL;

/*
 * Reads a field: in a tp_btf program by a load that the kernel checks
 * (no helper call), in a raw tracepoint program by the helper.
 */
#define GET(raw, dst, ptr, field)                                              \
	do {                                                                   \
		if (raw)                                                       \
			bpf_probe_read_kernel(&(dst), sizeof(dst),             \
					      &(ptr)->field);                  \
		else                                                           \
			(dst) = (ptr)->field;                                  \
	} while (0)

/* Always by the helper: for pointers the verifier must not reason about. */
#define PEEK(dst, ptr, field)                                                  \
	bpf_probe_read_kernel(&(dst), sizeof(dst), &(ptr)->field)

static __always_inline __u16 swap16(__u16 x)
{
	return __builtin_bswap16(x);
}

/*
 * skb->dev and skb->sk share their memory with numbers: dev_scratch, and before
 * 6.9 ip_defrag_offset (include/linux/skbuff.h). A kernel pointer has its
 * highest bit set on every machine that whydrop runs on. (In assembler: the
 * compiler would shift the pointer, which the verifier does not let it.)
 */
static __always_inline bool is_pointer(const void *p)
{
	__u64 is;

	asm volatile("%0 = 0\n"
		     "if %1 s>= 0 goto +1\n"
		     "%0 = 1"
		     : "=&r"(is)
		     : "r"(p));
	return is;
}

static __always_inline __u32 net_inum(struct net *net, bool raw)
{
	__u32 inum = 0;

	GET(raw, inum, net, ns.inum);
	return inum >= NETNS_INUM_MIN && inum <= NETNS_INUM_MAX ? inum : 0;
}

static __always_inline __u32 dev_netns(struct net_device *dev, bool raw)
{
	struct net *net = NULL;

	if (!field_exists(dev->nd_net.net))
		return 0;
	GET(raw, net, dev, nd_net.net);
	return net_inum(net, raw);
}

static __always_inline __u32 sk_netns(struct sock *sk, bool raw)
{
	struct net *net = NULL;

	if (!field_exists(sk->__sk_common.skc_net.net))
		return 0;
	GET(raw, net, sk, __sk_common.skc_net.net);
	return net_inum(net, raw);
}

/* Types a pointer for the verifier, so that it may be read by plain loads. */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __kfunc_weak;

/*
 * The protocol byte of the IP header; for IPv6 the first next-header. The
 * network header is unset (0) before the stack has looked at a received
 * packet: its data starts there then.
 */
static __always_inline __u8 ip_proto(struct sk_buff *skb, __u16 ethertype,
				     bool raw)
{
	unsigned char *ip = NULL;
	__u16 offset = 0;
	__u8 bytes[12] = {};

	if (ethertype != ETH_P_IP && ethertype != ETH_P_IPV6)
		return 0;
	GET(raw, offset, skb, network_header);
	if (offset) {
		GET(raw, ip, skb, head);
		ip += offset;
	} else {
		GET(raw, ip, skb, data);
	}
	if (have_cast && !raw) {
		if (ethertype == ETH_P_IP) {
			struct iphdr *v4 = bpf_rdonly_cast(ip, kernel_type_id(struct iphdr));

			return v4->protocol;
		} else {
			struct ipv6hdr *v6 = bpf_rdonly_cast(ip, kernel_type_id(struct ipv6hdr));

			return v6->nexthdr;
		}
	}
	if (bpf_probe_read_kernel(bytes, sizeof(bytes), ip))
		return 0;
	return ethertype == ETH_P_IP ? bytes[9] : bytes[6];
}

/*
 * The argument n as a number: the verifier lets nobody calculate with a
 * pointer that it knows the type of.
 */
static __always_inline __u64 address(__u64 *ctx, int n)
{
	__u64 a = 0;

	/* Elsewhere loads must be from ctx itself, not from a sum. */
	asm volatile("" : "+r"(ctx));
	bpf_probe_read_kernel(&a, sizeof(a), &ctx[n]);
	return a;
}

static __always_inline struct cpu_state *cpu_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&state, &zero);
}

/*
 * The argument rx_sk, as a number. It is NULL when there is none, but kernels
 * 6.11 and 6.12 take arguments of tp_btf for valid and remove the check (see
 * "bpf: Augment raw_tp arguments with PTR_MAYBE_NULL", 6.13). What was
 * written to memory and read back has no type for the verifier to go by. The
 * memory is the CPU's: where programs nest, the helper reads it instead.
 */
static __always_inline struct sock *read_rx_sk(__u64 *ctx)
{
	struct cpu_state *st;

	if (kfree_skb_args < 4)
		return NULL;
	if (may_nest)
		return (struct sock *)address(ctx, 3);
	st = cpu_state();
	if (!st)
		return NULL;
	*(volatile __u64 *)&st->rx_sk = ctx[3];
	return (struct sock *)*(volatile __u64 *)&st->rx_sk;
}

static __always_inline struct pending *pending_of(__u64 skb)
{
	__u32 at = (skb * 0x9e3779b97f4a7c15ull) >> 56; /* log2(PENDING) bits */

	return bpf_map_lookup_elem(&pending, &at);
}

/*
 * The reason that the qdisc gave. Since 7.2 it tells tracepoint qdisc:qdisc_drop
 * which of its limits a packet met, puts the packet on a list, and frees the
 * list for the one reason QDISC_DROP on the same CPU (net/core/dev.c).
 */
static __always_inline __u32 qdisc_reason(__u64 *ctx, __u32 reason)
{
	struct pending *p;
	__u64 skb;

	if (!qdisc_drop || reason != qdisc_drop)
		return reason;
	skb = address(ctx, 0);
	p = pending_of(skb);
	if (!p || p->skb != skb || p->time_ns)
		return reason;
	p->skb = 0;
	return p->reason;
}

/* Tells a packet from the next one in the same skb: its buffer and headers. */
static __always_inline __u64 packet_sum(struct sk_buff *skb)
{
	__u64 h, words[6] = {}; /* as far as the ports, or the ID of IPv4 */
	unsigned char *head = NULL;
	__u16 mac = NO_HEADER;

	PEEK(head, skb, head);
	PEEK(mac, skb, mac_header);
	h = (__u64)head + mac;
	if (mac != NO_HEADER)
		bpf_probe_read_kernel(words, sizeof(words), head + mac);
#pragma unroll
	for (int i = 0; i < 6; i++) {
		h = (h ^ words[i]) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 32;
	}
	return h;
}

/*
 * Whether hardware dropped this packet, and it is counted already. Drivers
 * report it and free it at once: mostly without an event, mlx5 by
 * dev_kfree_skb_any, which is one. prestera hands on what it reported, all of a
 * poll together. Either way it is the same packet in the same softirq.
 */
static __always_inline bool is_twin(__u64 *ctx)
{
	struct pending *p;
	__u64 skb;

	if (!have_traps || likely((__s32)(trapped_until - epoch) <= 0))
		return false;
	skb = address(ctx, 0);
	p = pending_of(skb);
	if (!p || p->skb != skb || !p->time_ns)
		return false;
	p->skb = 0;
	return bpf_ktime_get_ns() - p->time_ns <= twin_ns &&
	       packet_sum((struct sk_buff *)skb) == p->sum;
}

/* Fills the key; returns the device if skb->dev is one. */
static __always_inline struct net_device *
fill_key(struct words *k, __u64 *ctx, struct sk_buff *skb, bool raw)
{
	struct net_device *dev = NULL;
	struct sock *sk = NULL, *rx_sk = NULL;
	__u32 iif = 0, ifindex = 0, netns = 0;
	__u32 reason = kfree_skb_args >= 3 ? ctx[2] : 0;
	__u64 direction;
	__u16 proto = 0;

	GET(raw, proto, skb, protocol);
	proto = swap16(proto);
	GET(raw, iif, skb, skb_iif);
	GET(raw, dev, skb, dev);
	GET(raw, sk, skb, sk);
	if (!is_pointer(sk))
		sk = NULL;
	if (!is_pointer(dev))
		dev = NULL;
	if (dev) {
		netns = dev_netns(dev, raw);
		if (netns)
			GET(raw, ifindex, dev, ifindex);
		else
			dev = NULL;
	}
	/* Asked for only where nothing else tells: most drops have a device. */
	if (!sk && (!dev || !iif))
		rx_sk = read_rx_sk(ctx);
	if (!dev) {
		/* A socket's queue: the device is gone, the index remains. */
		ifindex = iif;
		if (sk)
			netns = sk_netns(sk, raw);
		else if (rx_sk)
			netns = sk_netns(rx_sk, true);
	}
	if (iif)
		direction = ifindex == iif ? DIR_RX : DIR_FWD;
	else if (rx_sk)
		direction = DIR_RX;
	else
		direction = sk ? DIR_TX : DIR_UNKNOWN;
	k->location = ctx[1];
	k->reason_netns = qdisc_reason(ctx, reason) | (__u64)netns << 32;
	k->rest = ifindex | (__u64)proto << 32 |
		  (__u64)ip_proto(skb, proto, raw) << 48 | direction << 56;
	return dev;
}

static __always_inline __u32 hash_key(const struct words *k)
{
	__u64 h = k->location * 0x9e3779b97f4a7c15ull;

	h = (h ^ (h >> 32) ^ k->reason_netns) * 0xd6e8feb86659fd93ull;
	h = (h ^ (h >> 32) ^ k->rest) * 0xa0761d6478bd642full;
	return h >> 32;
}

static __always_inline bool same_key(const struct drop_key *a,
				     const struct words *b)
{
	const struct words *w = (const struct words *)a;

	return w->location == b->location &&
	       w->reason_netns == b->reason_netns && w->rest == b->rest;
}

/* The slot of k in a stretch, claimed if need be; NULL when full. */
static __always_inline struct slot *slot_in(const struct words *k, __u32 base,
					    __u32 slots_there)
{
	__u32 h = hash_key(k);

#pragma unroll
	for (int i = 0; i < PROBES; i++) {
		__u32 at = base + ((h + i) & (slots_there - 1));
		struct slot *s = bpf_map_lookup_elem(&slots, &at);

		if (!s)
			return NULL;
		if (same_key(&s->key, k))
			return s;
		if (!s->key.location) {
			s->tokens = burst;
			s->epoch = epoch;
			*(struct words *)&s->key = *k;
			return s;
		}
	}
	return NULL;
}

/* The slot of k in this CPU's stretch. */
static __always_inline struct slot *find_slot(const struct words *k,
					      __u32 level)
{
	__u32 base = bpf_get_smp_processor_id();

	if (may_nest)
		base = base * LEVELS + level;
	return slot_in(k, base * slots_per_cpu, slots_per_cpu);
}

static __always_inline bool take_token(struct slot *s)
{
	__u32 now = epoch;

	if (s->epoch != now) {
		__u64 t = s->tokens + (__u64)(now - s->epoch) * refill;

		s->tokens = MIN(t, burst);
		s->epoch = now;
	}
	if (!s->tokens)
		return false;
	s->tokens--;
	return true;
}

/* sk is read by the helper only: rx_sk may be NULL or not a full socket. */
static __always_inline void fill_socket(struct event *e, struct sock *sk)
{
	struct socket *socket = NULL;
	struct inode *inode;
	unsigned long ino = 0;

	PEEK(e->sk_family, sk, __sk_common.skc_family);
	PEEK(e->sk_state, sk, __sk_common.skc_state);
	PEEK(e->sk_cookie, sk, __sk_common.skc_cookie.counter);
	/* Request and time-wait sockets end before sk_socket and sk_protocol. */
	if (e->sk_state == TCP_TIME_WAIT || e->sk_state == TCP_NEW_SYN_RECV)
		return;
	PEEK(e->sk_protocol, sk, sk_protocol);
	PEEK(socket, sk, sk_socket);
	if (!socket)
		return;
	/* SOCK_INODE(): both live in one socket_alloc (net/sock.h). */
	inode = (void *)socket -
		field_offset(((struct socket_alloc *)0)->socket) +
		field_offset(((struct socket_alloc *)0)->vfs_inode);
	PEEK(ino, inode, i_ino);
	e->sk_inode = ino;
}

static __always_inline void fill_vlan(struct event *e, struct sk_buff *skb)
{
	__u32 all = 0;
	__u16 proto = 0;

	if (field_exists(((struct sk_buff___vlan_all *)0)->vlan_all)) {
		PEEK(all, (struct sk_buff___vlan_all *)skb, vlan_all);
		if (!all)
			return;
	}
	PEEK(proto, skb, vlan_proto);
	PEEK(e->vlan_tci, skb, vlan_tci);
	e->vlan_proto = swap16(proto);
}

/* Copies the first bytes of the packet, from the outermost header known. */
static __always_inline void fill_snap(struct event *e, struct sk_buff *skb,
				      __u16 dev_type, bool has_dev)
{
	unsigned char *head = NULL, *data = NULL;
	__u16 mac = NO_HEADER, net = 0;
	__u32 tail = 0, from, room;
	bool ethernet = !has_dev || dev_type == ARPHRD_ETHER ||
			dev_type == ARPHRD_LOOPBACK;

	PEEK(head, skb, head);
	PEEK(data, skb, data);
	PEEK(mac, skb, mac_header);
	PEEK(net, skb, network_header);
	PEEK(tail, skb, tail);
	if (ethernet && mac != NO_HEADER &&
	    (net >= mac + ETH_HLEN ? net <= mac + ETH_HLEN + 8 : has_dev && !net)) {
		e->start = START_LINK;
		from = mac;
	} else {
		e->start = START_NETWORK;
		from = net ? net : (__u32)(data - head);
	}
	if (from >= tail) {
		e->start = START_NONE;
		return;
	}
	room = tail - from;
	if (room > SNAP)
		room = SNAP;
	if (bpf_probe_read_kernel(e->snap, room, head + from)) {
		e->start = START_NONE;
		return;
	}
	e->snap_bytes = room;
}

static __always_inline void fill_lengths(struct event *e, struct sk_buff *skb)
{
	struct skb_shared_info *info;
	unsigned char *head = NULL;
	__u32 end = 0;

	PEEK(e->len, skb, len);
	PEEK(e->data_len, skb, data_len);
	PEEK(e->truesize, skb, truesize);
	PEEK(e->mark, skb, mark);
	PEEK(e->queue, skb, queue_mapping);
	PEEK(head, skb, head);
	PEEK(end, skb, end);
	info = (void *)(head + end);
	PEEK(e->gso_segs, info, gso_segs);
	PEEK(e->gso_size, info, gso_size);
}

/* The slow path: a whole record of one drop. */
static __always_inline void sample(__u64 *ctx, const struct words *k,
				   struct sk_buff *skb, struct net_device *dev,
				   bool hardware)
{
	struct event *e = bpf_ringbuf_reserve(&samples, sizeof(*e), 0);
	struct sock *sk = NULL, *rx_sk;
	struct cpu_state *st;
	__u64 task;
	__u16 dev_type = 0;

	if (!e) {
		st = cpu_state();
		if (st)
			__sync_fetch_and_add(&st->samples_lost, 1);
		return;
	}
	/* All but the two arrays at the end, whose used length is recorded. */
	__builtin_memset(e, 0, __builtin_offsetof(struct event, stack));
	e->time_ns = bpf_ktime_get_ns();
	*(struct words *)&e->key = *k;
	e->cpu = bpf_get_smp_processor_id();
	task = bpf_get_current_pid_tgid();
	e->pid = task >> 32;
	e->tid = (__u32)task;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	fill_lengths(e, skb);
	fill_vlan(e, skb);
	if (dev) {
		PEEK(e->dev, dev, name);
		PEEK(dev_type, dev, type);
	}
	fill_snap(e, skb, dev_type, dev != NULL);
	PEEK(sk, skb, sk);
	rx_sk = hardware ? NULL : read_rx_sk(ctx);
	if (rx_sk) {
		e->sk_from = SK_RX;
		fill_socket(e, rx_sk);
	} else if (is_pointer(sk)) {
		e->sk_from = SK_SKB;
		fill_socket(e, sk);
	}
	e->stack_bytes = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* Counts a drop that has no slot. */
static __always_inline void count_full(__u32 len)
{
	struct cpu_state *st = cpu_state();

	if (st) {
		__sync_fetch_and_add(&st->table_full, 1);
		__sync_fetch_and_add(&st->table_full_bytes, len);
	}
}

static __always_inline void count(__u64 *ctx, __u32 level, bool raw)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct net_device *dev;
	struct words k;
	struct slot *s;
	__u32 len = 0;

	if (is_twin(ctx))
		return;
	dev = fill_key(&k, ctx, skb, raw);
	GET(raw, len, skb, len);
	s = find_slot(&k, level);
	if (!s) {
		count_full(len);
		return;
	}
	s->bytes += len;
	s->drops++;
	if (take_token(s))
		sample(ctx, &k, skb, dev, false);
}

static __always_inline int on_drop(__u64 *ctx, bool raw)
{
	struct cpu_state *st;
	__u32 level;

	if (!may_nest) {
		count(ctx, 0, raw);
		return 0;
	}
	st = cpu_state();
	if (!st)
		return 0;
	/*
	 * Interrupts nest: whoever interrupts puts depth back before returning,
	 * so plain loads and stores suffice.
	 */
	level = *(volatile __u32 *)&st->depth;
	if (level >= LEVELS) {
		__sync_fetch_and_add(&st->too_deep, 1);
		return 0;
	}
	*(volatile __u32 *)&st->depth = level + 1;
	barrier();
	count(ctx, level, raw);
	barrier();
	*(volatile __u32 *)&st->depth = level;
	return 0;
}

SEC("tp_btf/kfree_skb")
int kfree_skb_btf(__u64 *ctx)
{
	return on_drop(ctx, false);
}

SEC("raw_tracepoint/kfree_skb")
int kfree_skb_raw(__u64 *ctx)
{
	return on_drop(ctx, true);
}

/* Arguments: qdisc, txq, dev, skb, reason. */
SEC("tp_btf/qdisc_drop")
int qdisc_drop_btf(__u64 *ctx)
{
	__u64 skb = address(ctx, 3);
	struct pending *p = pending_of(skb);

	if (p) {
		p->skb = skb;
		p->time_ns = 0;
		p->reason = ctx[4];
	}
	return 0;
}

/* The key of a trap's words. Drivers come and go, so addresses are none. */
static __always_inline __u64 hash_trap(const struct trap *t)
{
	const volatile __u64 *w = (const volatile __u64 *)t;
	__u64 h = 0;

#pragma unroll
	for (unsigned int i = 0; i < sizeof(*t) / sizeof(*w); i++) {
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 32;
	}
	return h ? h : 1;
}

/*
 * The words of a trap, brought to user space with the first report: samples
 * would come too late or not at all. False where there is no room for them.
 */
static __always_inline bool name_trap(struct devlink_trap_metadata *m,
				      __u64 *key)
{
	const char *name = NULL, *group = NULL;
	struct trap t = {};

	if (!field_exists(m->trap_name) || !field_exists(m->trap_group_name))
		return false;
	PEEK(name, m, trap_name);
	PEEK(group, m, trap_group_name);
	bpf_probe_read_kernel_str(t.name, sizeof(t.name), name);
	bpf_probe_read_kernel_str(t.group, sizeof(t.group), group);
	*key = hash_trap(&t);
	return bpf_map_lookup_elem(&traps, key) ||
	       !bpf_map_update_elem(&traps, key, &t, BPF_ANY);
}

/*
 * The protocol as ip_proto() has it. The driver has set the link header, and
 * may have put data before it or behind it.
 */
static __always_inline __u8 trapped_proto(struct sk_buff *skb, __u16 ethertype)
{
	unsigned char *head = NULL;
	__u16 mac = NO_HEADER, net = 0;
	__u8 proto = 0;

	PEEK(net, skb, network_header);
	PEEK(mac, skb, mac_header);
	if (net || mac == NO_HEADER)
		return ip_proto(skb, ethertype, true);
	if (ethertype != ETH_P_IP && ethertype != ETH_P_IPV6)
		return 0;
	PEEK(head, skb, head);
	head += mac + ETH_HLEN + (ethertype == ETH_P_IP ? 9 : 6);
	bpf_probe_read_kernel(&proto, sizeof(proto), head);
	return proto;
}

/* Remembers that the packet is counted, for when it is freed. */
static __always_inline void expect_twin(struct sk_buff *skb)
{
	__u32 until = epoch + TRAP_TICKS;
	struct pending *p = pending_of((__u64)skb);

	if (!p)
		return;
	p->skb = (__u64)skb;
	p->sum = packet_sum(skb);
	p->time_ns = bpf_ktime_get_ns();
	if (trapped_until != until)
		trapped_until = until;
}

/*
 * Arguments: devlink, skb, metadata. Only what hardware drops: what it cannot
 * forward itself (DEVLINK_TRAP_TYPE_EXCEPTION) goes on into the kernel, whose
 * drop it is if it is one; what is meant for the host (CONTROL) is no drop.
 *
 * It has stretches of its own, as it may run while kfree_skb does, and on
 * PREEMPT_RT be preempted by itself; hence atomics. Reports are few: traps are
 * policed.
 */
SEC("raw_tracepoint/devlink_trap_report")
int trap_report_raw(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[1];
	struct devlink_trap_metadata *m = (void *)ctx[2];
	enum devlink_trap_type type = DEVLINK_TRAP_TYPE_CONTROL;
	struct net_device *dev = NULL;
	__u32 ifindex = 0, netns = 0, len = 0;
	struct slot *s = NULL;
	__u16 proto = 0;
	struct words k;

	if (!field_exists(m->trap_type))
		return 0;
	PEEK(type, m, trap_type);
	if (type != DEVLINK_TRAP_TYPE_DROP)
		return 0;
	if (field_exists(m->input_dev))
		PEEK(dev, m, input_dev);
	PEEK(proto, skb, protocol);
	PEEK(len, skb, len);
	proto = swap16(proto);
	if (dev) {
		netns = dev_netns(dev, true);
		PEEK(ifindex, dev, ifindex);
	}
	if (name_trap(m, &k.location)) {
		k.reason_netns = (__u64)netns << 32;
		k.rest = ifindex | (__u64)proto << 32 |
			 (__u64)trapped_proto(skb, proto) << 48 |
			 (__u64)DIR_HARDWARE << 56;
		s = slot_in(&k, trap_base + bpf_get_smp_processor_id() * TRAP_SLOTS,
			    TRAP_SLOTS);
	}
	expect_twin(skb);
	if (!s) {
		count_full(len);
		return 0;
	}
	__sync_fetch_and_add(&s->bytes, len);
	__sync_fetch_and_add(&s->drops, 1);
	if (take_token(s))
		sample(ctx, &k, skb, dev, true);
	return 0;
}

char _license[] SEC("license") = "GPL";
