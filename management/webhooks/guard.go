package webhooks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// errAddress refuses an address that is nobody's business outside.
var errAddress = errors.New("the address is not a public one")

// PrivateRanges are what an operator allows who has receivers in a network of its own: private addresses, and this machine's.
func PrivateRanges() []netip.Prefix { return slices.Clone(privateRanges) }

var privateRanges = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "fc00::/7", "::1/128")

// never are the addresses where clouds keep their machines' credentials; nothing allows them, and one of them is a public one.
var never = prefixes(
	"169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32",
	"fd00:42::42/128", "fd00:a9fe:a9fe::1/128", "fd00:100::100:200/128", "0.0.0.0/8", "::/128",
)

// notPublic are the parts of the address space that look public, and are kept for something else (the IANA's special-purpose registries).
var notPublic = prefixes(
	"100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

var (
	globalV6 = netip.MustParsePrefix("2000::/3")
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func in(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// permitted refuses addresses that a receiver has no reason to be at, unless allowed has them. Whoever may name an endpoint could else make
// this process knock at doors that only it can reach.
func permitted(a netip.Addr, allowed []netip.Prefix) error {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) { // a way to an IPv4 address
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	switch {
	case !a.IsValid(), a.IsMulticast(), in(never, a):
		return errAddress
	case in(allowed, a):
		return nil
	case a.IsPrivate(), a.IsLoopback(), in(notPublic, a), a.Is6() && !globalV6.Contains(a):
		return errAddress
	}
	return nil
}

// connectTimeout bounds the dialling of one attempt; the attempt's own timeout bounds all of it.
const connectTimeout = 10 * time.Second

// streamBuffer is how much of an answer may wait here to be read, where it comes by HTTP/2. Any receiver could else leave 4 MiB here with each attempt.
const streamBuffer = 4 * readAnswer

// newClient makes a client that connects to permitted addresses alone. It looks at the address that is dialled, after the name was resolved,
// so a name that resolves to something else the next time gains nothing; redirects are answers, not followed; and no proxy is
// asked, which would resolve names itself.
func newClient(allowed []netip.Prefix) *http.Client {
	d := &net.Dialer{Timeout: connectTimeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: it can't be read", errAddress)
		}
		return permitted(to.Addr(), allowed)
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: d.DialContext, TLSHandshakeTimeout: connectTimeout, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: perEndpoint,
			MaxIdleConns: 64, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 32 << 10, DisableCompression: true,
			HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: streamBuffer},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
