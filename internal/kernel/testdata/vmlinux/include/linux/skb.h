/* The freeing of packets as the kernel has it: inline functions of a header. */
struct packet { int length, reason; };

void drop_packet(struct packet *p, int reason);

static inline __attribute__((always_inline)) void free_packet_reason(struct packet *p, int reason)
{
	drop_packet(p, reason); /* header */
}

static inline __attribute__((always_inline)) void free_packet(struct packet *p)
{
	free_packet_reason(p, 1); /* header */
}
