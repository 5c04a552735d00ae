package counter

import "slices"

// tree adds up the qdiscs of a device so that a packet counts once. A drop in
// a leaf is repeated by every ancestor, when it is refused (the parent's
// enqueue function) as when it is thrown out later (net/sched/sch_api.c,
// qdisc_tree_reduce_backlog); and a parent has drops of its own, such as htb
// for packets without a class. So of a qdisc and of the sum of its children
// the greater number holds: the leaves alone would miss the parent's own
// drops, and all together would count the others several times.
func tree(qdiscs []qdisc) tcStats {
	root := slices.IndexFunc(qdiscs, func(q qdisc) bool { return q.parent == handleRoot })
	byHandle := make(map[uint32]int, len(qdiscs))
	for i, q := range qdiscs {
		if _, ok := byHandle[q.handle]; !ok {
			byHandle[q.handle] = i
		}
	}
	children := make(map[int][]int, len(qdiscs))
	for i, q := range qdiscs {
		p := parentOf(q.parent, byHandle, root)
		children[p] = append(children[p], i)
	}
	// Each has one parent, so what hangs on none is free of circles, whatever
	// a message says.
	var sum tcStats
	for _, i := range children[noParent] {
		s := subtree(qdiscs, children, i)
		sum.sum(&s)
	}
	return sum
}

// noParent is the parent of a root, and of a qdisc whose parent is not there.
const noParent = -1

// parentOf finds the qdisc that one hangs on, or noParent. The children of a
// root without a handle, such as the mq that the kernel itself sets up, name
// it by 0.
func parentOf(parent uint32, byHandle map[uint32]int, root int) int {
	if parent == handleRoot {
		return noParent
	}
	major := parent & handleQdisc
	if major == 0 {
		return root // noParent where there is none
	}
	if i, ok := byHandle[major]; ok {
		return i
	}
	return noParent
}

// subtree adds up a qdisc and all below it.
func subtree(qdiscs []qdisc, children map[int][]int, i int) tcStats {
	own := qdiscs[i].stats
	if len(children[i]) == 0 {
		return own
	}
	var below tcStats
	for _, c := range children[i] {
		s := subtree(qdiscs, children, c)
		below.sum(&s)
	}
	return tcStats{
		hasBasic: true, hasQueue: true,
		bytes: max(own.bytes, below.bytes), packets: max(own.packets, below.packets),
		drops: max(own.drops, below.drops), requeues: max(own.requeues, below.requeues),
		overlimits: max(own.overlimits, below.overlimits),
		qlen:       max(own.qlen, below.qlen), backlog: max(own.backlog, below.backlog),
	}
}

// sum adds the statistics of another. Rates make no sum.
func (s *tcStats) sum(o *tcStats) {
	s.hasBasic = s.hasBasic || o.hasBasic
	s.hasQueue = s.hasQueue || o.hasQueue
	s.bytes += o.bytes
	s.packets += o.packets
	s.drops += o.drops
	s.requeues += o.requeues
	s.overlimits += o.overlimits
	s.qlen += o.qlen
	s.backlog += o.backlog
}
