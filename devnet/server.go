package devnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
)

// shutdownTime is how long Close waits for requests that are being answered.
const shutdownTime = time.Second

// turnstile keeps requests from seeing half a block. When the chain's head changes, receipts can be read a
// little before the state can, so a client could find its payment and then the balance from before it. Who
// passes while the head changes waits at the door; who is inside already goes on. So what a client asks
// after an answer is never older than that answer.
type turnstile struct{ door sync.RWMutex }

// pass waits while the head changes.
func (t *turnstile) pass() {
	t.door.RLock()
	t.door.RUnlock() //nolint:gocritic,staticcheck // there is nothing to guard behind the door: who got through is through
}

// server is the chain's endpoint: JSON-RPC over HTTP, behind the turnstile.
type server struct {
	listener net.Listener
	http     http.Server
	rpc      *rpc.Server
	ended    sync.WaitGroup
}

// listen takes the address; clients wait until serve.
func (s *server) listen(ctx context.Context, addr string) error {
	var err error
	if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return nil
}

// serve answers with those of apis that a public node would offer.
func (s *server) serve(apis []rpc.API, t *turnstile, logger *slog.Logger) error {
	s.rpc = rpc.NewServer()
	s.rpc.SetBatchLimits(node.DefaultConfig.BatchRequestLimit, node.DefaultConfig.BatchResponseMaxSize)
	for _, api := range append(apis, rpc.API{Namespace: "web3", Service: web3{}}) {
		if !slices.Contains([]string{"eth", "net", "txpool", "web3"}, api.Namespace) {
			continue
		}
		if err := s.rpc.RegisterName(api.Namespace, api.Service); err != nil {
			return fmt.Errorf("devnet: offering %s: %w", api.Namespace, err)
		}
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.pass()
		s.rpc.ServeHTTP(w, r)
	})
	// Web pages may ask too, as they may ask any public endpoint. A name that leads here must be
	// "localhost" unless the chain was told to listen to others.
	hosts := []string{"localhost"}
	if addr, ok := s.listener.Addr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() {
		hosts = []string{"*"}
	}
	s.http.Handler = node.NewHTTPHandlerStack(handler, []string{"*"}, hosts, nil, false)
	s.http.ReadHeaderTimeout = 10 * time.Second
	s.http.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
	s.ended.Go(func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("devnet: the endpoint ended", slog.Any("error", err))
		}
	})
	return nil
}

// stop ends what listen and serve began.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if s.rpc != nil {
		s.rpc.Stop()
	}
	if err := s.http.Shutdown(ctx); err != nil {
		err = s.http.Close() // whoever is not done by now is cut off
		if err != nil {
			return fmt.Errorf("devnet: closing the endpoint: %w", err)
		}
	}
	// Shutdown knows of the listener only if serve was called.
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("devnet: closing the endpoint: %w", err)
	}
	s.ended.Wait()
	return nil
}

// web3 answers what clients ask to find out with whom they speak.
type web3 struct{}

// ClientVersion is web3_clientVersion.
func (web3) ClientVersion() string { return "caddy-x402-devnet" }

// Sha3 is web3_sha3.
func (web3) Sha3(input hexutil.Bytes) hexutil.Bytes { return crypto.Keccak256(input) }
