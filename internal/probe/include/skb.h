/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fields of the kernel's structures that the programs here read; their
 * offsets are filled in by CO-RE from the running kernel's BTF. A name with
 * ___ in it is a second view of the same kernel structure, for a field that
 * some kernels lack.
 */
#ifndef WHYDROP_SKB_H
#define WHYDROP_SKB_H

#include "bpf.h"

struct ns_common {
	unsigned int inum;
} __co_re;

struct net {
	struct ns_common ns;
} __co_re;

typedef struct {
	struct net *net;
} __co_re possible_net_t;

struct net_device {
	char name[16];
	int ifindex;
	unsigned short type;
	possible_net_t nd_net;
} __co_re;

struct socket;

struct sock_common {
	unsigned short skc_family;
	unsigned char skc_state;
	possible_net_t skc_net;
	struct {
		__s64 counter;
	} __co_re skc_cookie;
} __co_re;

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	/* A bit field of 8 bits before 5.6; the kernels here have 5.8 and on. */
	__u16 sk_protocol;
} __co_re;

struct inode {
	unsigned long i_ino;
} __co_re;

struct socket {
	short type;
} __co_re;

struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
} __co_re;

struct iphdr {
	__u8 tos; /* its neighbour is a bit field: version is in the byte before */
	__u8 protocol;
} __co_re;

struct ipv6hdr {
	__u8 nexthdr;
} __co_re;

struct skb_shared_info {
	unsigned short gso_size;
	unsigned short gso_segs;
} __co_re;

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned int len;
	unsigned int data_len;
	__u16 queue_mapping;
	__u32 mark;
	int skb_iif;
	__u16 vlan_proto;
	__u16 vlan_tci;
	__u16 protocol;
	__u16 network_header;
	__u16 mac_header;
	unsigned int tail;
	unsigned int end;
	unsigned char *head;
	unsigned char *data;
	unsigned int truesize;
} __co_re;

/* UAPI (linux/devlink.h). */
enum devlink_trap_type {
	DEVLINK_TRAP_TYPE_DROP,
	DEVLINK_TRAP_TYPE_EXCEPTION,
	DEVLINK_TRAP_TYPE_CONTROL,
};

struct devlink_trap_metadata {
	const char *trap_name;
	const char *trap_group_name;
	struct net_device *input_dev;
	enum devlink_trap_type trap_type;
} __co_re;

/* Since 6.2 a tag is present when vlan_all is not 0 (354259fa73e2). */
struct sk_buff___vlan_all {
	__u32 vlan_all;
} __co_re;

#endif
