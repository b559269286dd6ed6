package webhooks

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Which addresses may be knocked at.
func TestPermittedAddresses(t *testing.T) {
	for _, c := range []struct {
		list            string
		open, ifAllowed bool
	}{
		{"8.8.8.8 1.1.1.1 93.184.216.34 2606:4700:4700::1111 2a00:1450::1 64:ff9b::808:808 ::ffff:8.8.8.8", true, true},
		{"10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 127.0.0.1 127.9.9.9 100.64.0.1 ::1 fc00::1 fdff::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 64:ff9b::a00:1", false, true},
		{"169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe fe80::1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42 fd00:a9fe:a9fe::1 fd00:100::100:200 192.0.0.192 100.100.100.200 168.63.129.16 0.0.0.0 0.1.2.3 :: 224.0.0.1 ff02::1", false, false},
		{"255.255.255.255 240.0.0.1 192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 192.0.0.1 192.88.99.1 2001:db8::1 2002:7f00:1:: 2001::1 3fff::1 fec0::1 64:ff9b:1::1 100::1 5f00::1", false, false},
	} {
		for text := range strings.FieldsSeq(c.list) {
			a := netip.MustParseAddr(text)
			if got := permitted(a, nil) == nil; got != c.open {
				t.Errorf("%s: %t", text, got)
			}
			if got := permitted(a, PrivateRanges()) == nil; got != c.ifAllowed {
				t.Errorf("%s, where private ones are allowed: %t", text, got)
			}
		}
	}
	if permitted(netip.Addr{}, PrivateRanges()) == nil || permitted(netip.MustParseAddr("fe80::1%eth0"), PrivateRanges()) == nil {
		t.Error("no address, or one of a link, is permitted")
	}
	only := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	if permitted(netip.MustParseAddr("10.1.2.3"), only) != nil || permitted(netip.MustParseAddr("10.2.0.1"), only) == nil {
		t.Error("a range that is allowed is not what it is")
	}
}

// What net calls private, local or otherwise special is never permitted, in whatever form it is written.
func TestNothingSpecialIsPermitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address"))
		v4 := netip.AddrFrom4(b)
		ip := net.IP(b[:])
		special := !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
		mapped := netip.AddrFrom16(v4.As16())
		if plain := permitted(v4, nil); special && plain == nil || errors.Is(plain, errAddress) != errors.Is(permitted(mapped, nil), errAddress) {
			t.Fatalf("%s: %v", v4, plain)
		}
	})
}

// The address is looked at when it is dialled: a name that leads here is refused though it looks like any other.
func TestNamesThatLeadInside(t *testing.T) {
	r := newReceiver(t)
	_, port, err := net.SplitHostPort(r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(nil)
	defer client.CloseIdleConnections()
	for _, host := range []string{"localhost", "127.0.0.1", "0.0.0.0", "[::1]"} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+":"+port+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := client.Do(q); err == nil {
			_ = res.Body.Close()
			t.Errorf("%s answers %d", host, res.StatusCode)
		} else if reason := failure(err); reason != ReasonAddress {
			t.Errorf("%s: %s", host, reason)
		}
	}
	if n := len(r.take()); n != 0 {
		t.Errorf("%d requests came in", n)
	}
}
