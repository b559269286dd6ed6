package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the Caddy that users have
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	_ "github.com/caddy-x402/caddy-x402" // with this module
	"github.com/caddy-x402/caddy-x402/devnet"
)

// The roles. All keys are the well-known ones of development chains, or have none: the seller's money goes to an address
// whose key Caddy never needs.
var (
	seller = common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")
	gas    = devnet.Developer(0)
	buyer  = devnet.Developer(1)
	// hand is who pays by hand after the story: the buyer has a plan by then.
	hand = devnet.Developer(2)
	// ownGas sends the transactions of who writes a Caddyfile for the same chain.
	ownGas = devnet.Developer(3)
)

// stage is everything that runs: the chain, the way to it, the seller's API and Caddy in front of that.
type stage struct {
	dir       string
	chain     *devnet.Chain
	wire      *wire
	upstream  *upstream
	rpc       *ethclient.Client
	caddyfile string
	addr      string // of the site, host and port
	ops       string // of the site for the seller
	admin     string // of Caddy's admin endpoint
	running   bool
	restore   func()
}

// newStage starts everything on free ports of the loopback interface.
func newStage(ctx context.Context) (*stage, error) {
	s := &stage{restore: func() {}}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) start(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "caddy-x402-demo-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if s.chain, err = devnet.Start(ctx, devnet.Options{Logger: slog.New(slog.DiscardHandler), Payers: 1}); err != nil {
		return fmt.Errorf("starting the chain: %w", err)
	}
	if s.wire, err = newWire(ctx, s.chain.URL()); err != nil {
		return fmt.Errorf("laying a wire to the chain: %w", err)
	}
	if s.rpc, err = ethclient.DialContext(ctx, s.chain.URL()); err != nil {
		return fmt.Errorf("dialling the chain: %w", err)
	}
	if s.upstream, err = newUpstream(ctx); err != nil {
		return fmt.Errorf("starting the upstream: %w", err)
	}
	for _, addr := range []*string{&s.addr, &s.ops, &s.admin} {
		if *addr, err = freeAddr(ctx); err != nil {
			return err
		}
	}
	return s.startCaddy()
}

// startCaddy loads the Caddyfile that the story shows, and nothing else.
func (s *stage) startCaddy() error {
	s.restore = setenv(map[string]string{
		gasKeyVariable:  fmt.Sprintf("0x%x", crypto.FromECDSA(gas.Key)),
		"XDG_DATA_HOME": s.dir, // Caddy keeps its own id there
	})
	s.caddyfile = caddyfileOf(s)
	if err := os.WriteFile(s.caddyfileFile(), []byte(s.caddyfile), 0o600); err != nil { // for commands, which look for the shop by it
		return fmt.Errorf("writing the Caddyfile: %w", err)
	}
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return fmt.Errorf("adapting the Caddyfile: %w", err)
	}
	if len(warnings) > 0 {
		return fmt.Errorf("adapting the Caddyfile: %s", warnings[0])
	}
	caddy.BufferedLog() // what Caddy says before it has read where to log to is for nobody
	s.running = true
	if err := caddy.Load(config, true); err != nil {
		return fmt.Errorf("starting Caddy: %w", err)
	}
	return nil
}

// close ends everything, the newest first, and removes the directory.
func (s *stage) close() error {
	var errs []error
	if s.running {
		errs = append(errs, stopCaddy())
	}
	if s.upstream != nil {
		errs = append(errs, s.upstream.close())
	}
	if s.rpc != nil {
		s.rpc.Close()
	}
	if s.wire != nil {
		errs = append(errs, s.wire.close())
	}
	if s.chain != nil {
		errs = append(errs, s.chain.Close())
	}
	s.restore()
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// stopCaddy ends it and its admin endpoint, which nothing but another configuration ends.
func stopCaddy() error {
	const nothing = `{"admin":{"disabled":true,"config":{"persist":false}},"logging":{"logs":{"default":{"writer":{"output":"discard"}}}}}`
	return errors.Join(caddy.Load([]byte(nothing), true), caddy.Stop())
}

func (s *stage) url(path string) string { return "http://" + s.addr + path }

func (s *stage) ledgerFile() string { return filepath.Join(s.dir, "ledger.db") }

func (s *stage) dashboard() string { return "http://" + s.ops + "/dashboard" }

func (s *stage) caddyfileFile() string { return filepath.Join(s.dir, "Caddyfile") }

func (s *stage) logFile() string { return filepath.Join(s.dir, "caddy.log") }

// freeAddr is a loopback address that nobody listens on now.
func freeAddr(ctx context.Context) (string, error) {
	l, err := listen(ctx)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func listen(ctx context.Context) (net.Listener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("finding a free port: %w", err)
	}
	return l, nil
}

// setenv sets environment variables of this process, and gives what undoes it.
func setenv(values map[string]string) (restore func()) {
	before := map[string]*string{}
	for name, v := range values {
		if old, ok := os.LookupEnv(name); ok {
			before[name] = &old
		} else {
			before[name] = nil
		}
		_ = os.Setenv(name, v)
	}
	return func() {
		for name, old := range before {
			if old == nil {
				_ = os.Unsetenv(name)
			} else {
				_ = os.Setenv(name, *old)
			}
		}
	}
}
