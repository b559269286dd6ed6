// Package address says by what those are counted of whom only their address is known.
package address

import "net/netip"

// Key is by whom an address is counted: one customer of IPv6 has a whole /64. What is no address counts as it is.
func Key(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		prefix, err := ip.Prefix(64)
		if err == nil {
			return prefix.String()
		}
	}
	return ip.String()
}
