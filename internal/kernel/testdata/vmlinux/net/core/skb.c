#include "skb.h"

volatile int drops;

__attribute__((noinline)) void drop_packet(struct packet *p, int reason)
{
	p->reason = reason;
	drops++;
}
