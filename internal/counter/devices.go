package counter

// readDevices adds the counters of the devices of the calling thread's
// namespace, of their qdiscs, classes and filters.
func (s *Snapshot) readDevices() {
	a, err := newAsker()
	if err != nil {
		for _, source := range []string{linkSource, statsSource, qdiscSource, classSource, filterSource} {
			s.miss(source, err)
		}
		return
	}
	defer a.close()

	links, err := readLinks(a)
	values, perr := parseLinks(links)
	s.took(a, linkSource, values, err, perr)
	s.links = append(s.links, identities(links)...)
	names := make(map[uint32]string, len(links))
	for _, v := range values {
		names[v.Device.Index] = v.Device.Name
	}

	stats, err := readLinkStats(a)
	values, perr = parseLinkStats(stats, names)
	s.took(a, statsSource, values, err, perr)

	messages, err := readQdiscs(a)
	qdiscs, perr := decodeQdiscs(messages)
	values, over := qdiscValues(qdiscs, names)
	s.took(a, qdiscSource, values, err, perr, over)
	s.queues = append(s.queues, placesOf(qdiscs)...)

	messages, err = readClasses(a, qdiscs)
	classes, perr := decodeClasses(messages)
	values, over = classValues(classes, names)
	s.took(a, classSource, values, err, perr, over)

	messages, err = readFilters(a, filterPlaces(qdiscs, classes))
	values, perr = parseFilters(messages, names)
	s.took(a, filterSource, values, err, perr)
}

// took adds what a source gave, says what was wrong with it or left out, and
// starts the next one.
func (s *Snapshot) took(a *asker, source string, values []Value, errs ...error) {
	s.Values = append(s.Values, values...)
	for _, err := range append(errs, a.bounded()) {
		if err != nil {
			s.miss(source, err)
		}
	}
	a.begin()
}
