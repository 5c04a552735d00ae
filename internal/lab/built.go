package lab

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// Built says in sentences which namespaces there are and which devices each
// has, read from the kernel.
func (s *Setup) Built() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.top == nil {
		return nil, errors.New("list what is built: the scenario is closed")
	}
	var out []string
	for _, place := range []struct {
		name string
		ns   *netlab.Namespace
	}{
		{"the host, in which packets get lost", s.top.host},
		{"a neighbour of the host", s.top.peer},
		{"a network behind the host, which forwards", s.top.far},
	} {
		if place.ns == nil {
			continue
		}
		links, err := place.ns.Links().LinkList()
		if err != nil {
			return nil, fmt.Errorf("list what is built: %w", err)
		}
		for _, link := range links {
			attrs := link.Attrs()
			if attrs.Flags&net.FlagLoopback != 0 || attrs.Flags&net.FlagUp == 0 {
				continue // a kernel may make fallback devices of tunnels in each namespace
			}
			text, err := deviceText(place.ns, link)
			if err != nil {
				return nil, err
			}
			out = append(out, place.name+": "+text)
		}
	}
	return out, nil
}

// deviceText is a device with its kind, addresses and MTU.
func deviceText(ns *netlab.Namespace, link netlink.Link) (string, error) {
	addrs, err := ns.Links().AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return "", fmt.Errorf("list what is built: %w", err)
	}
	attrs := link.Attrs()
	text := fmt.Sprintf("%s (%s, MTU %d)", attrs.Name, link.Type(), attrs.MTU)
	for _, a := range addrs {
		text += " " + a.IPNet.String()
	}
	return text, nil
}
