package postgres_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// elsewhere is a connection to a server that seems to be on another machine.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 5432} }

// A server that does not sync its disk (as the tests' own) keeps no ledger, unless it is this machine's.
func TestNoSync(t *testing.T) {
	url := appURL(database(t))
	open(t, url, postgres.Options{})
	s, err := postgres.Open(t.Context(), url, postgres.WithDial(postgres.Options{},
		func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return elsewhere{c}, err
		}))
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, postgres.ErrSchema) || !strings.Contains(err.Error(), "set fsync = on") {
		t.Errorf("opened: %v", err)
	}
}
