/*
 * Functions that drop packets. The lines that end in a comment lead to the calls
 * of drop_packet, in the order of their addresses: tests read them from here.
 */
#include "skb.h"

extern volatile int setting;

static __attribute__((always_inline)) inline int check(struct packet *p)
{
	if (p->length < setting) {
		free_packet(p); /* check */
		return 1;
	}
	return 0;
}

__attribute__((noinline)) int receive(struct packet *p)
{
	if (check(p))
		return 1;
	if (p->reason == setting) {
		free_packet_reason(p, 7); /* receive */
		return 2;
	}
	return 0;
}

__attribute__((noinline, cold)) int refuse(struct packet *p)
{
	drop_packet(p, 3); /* refuse */
	return setting;
}

volatile int setting;

__attribute__((noinline)) int deliver(struct packet *p)
{
	if (p->length > setting)
		return refuse(p);
	return receive(p) + setting;
}
