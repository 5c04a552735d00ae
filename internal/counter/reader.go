package counter

import "time"

// Reader reads counters again and again. Between two reads it keeps the files
// of procfs open, and the names of what was in them: a read of those files
// alone needs no memory once the kernel shows no name that it did not show
// before.
//
// The files belong to the network namespace of the thread that called Read
// first, and keep it alive until Close. All else is asked anew, in the namespace
// of the thread that calls Read, which must be the same one.
//
// A Reader must not be used by two goroutines at once.
type Reader struct {
	files   *fileSet
	log     *kmsg // nil where the log is not read
	sources []func(*Snapshot)
}

// NewReader makes a Reader of the counters of the network namespace of the
// thread that calls Read; a goroutine that moved its thread there must still be
// locked to it. It opens nothing yet.
func NewReader() *Reader {
	return &Reader{files: newFileSet(thread, procfs, netnsFiles()), sources: netnsSources()}
}

// NewHostReader makes a Reader of what ReadHost reads. It opens nothing yet.
//
// It remembers how far it has read the kernel's log, so that between two reads
// every line counts once, also one that is overwritten after it was read.
func NewHostReader() *Reader {
	return &Reader{files: newFileSet(thread, procfs, hostFiles()), log: newKmsg(kmsgPath), sources: hostSources()}
}

// Read makes s what the counters are now. What s held before is gone, and its
// memory is used again: to compare two reads, take two snapshots in turn.
func (r *Reader) Read(s *Snapshot) {
	s.Time = time.Now()
	s.Values, s.Missing = s.Values[:0], s.Missing[:0]
	s.links, s.queues = s.links[:0], s.queues[:0]
	r.files.read(s)
	if r.log != nil {
		r.log.readInto(s)
	}
	for _, read := range r.sources {
		read(s)
	}
}

// Close closes the files. The Reader can still be used: it opens them again,
// where the thread is then, and what it knew of the log is forgotten.
func (r *Reader) Close() {
	r.files.close()
	if r.log != nil {
		r.log.close()
	}
}

// once reads one snapshot and closes the Reader.
func (r *Reader) once() (s Snapshot) {
	defer r.Close()
	r.Read(&s)
	return s
}
