package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
)

// shop is a server that sells, and what stands behind it.
type shop struct {
	system    string // partOurs, partPeer
	addr      string
	admin     string // Caddy's administration, "" for others
	processes []*process
	ends      []func() error // of what must end after the processes
}

// close ends everything, in the opposite order of starting.
func (s *shop) close() (err error) {
	for _, p := range slices.Backward(s.processes) {
		err = errors.Join(err, p.stop())
	}
	for _, end := range s.ends {
		err = errors.Join(err, end())
	}
	return err
}

// alive is an error if one of the processes has ended.
func (s *shop) alive() (err error) {
	for _, p := range s.processes {
		err = errors.Join(err, p.alive())
	}
	return err
}

// cpu is what each process has used so far.
func (s *shop) cpu() map[string]time.Duration {
	used := make(map[string]time.Duration, len(s.processes))
	for _, p := range s.processes {
		used[p.name] = p.cpu()
	}
	return used
}

func (s *shop) resident() (sum uint64) {
	for _, p := range s.processes {
		sum += p.resident()
	}
	return sum
}

// ours is the whole configuration of our Caddy.
const ours = `{
	admin {admin}
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	storage file_system {dir}
	log default {
		level WARN
	}
	x402 {
		network base-sepolia
		pay_to {seller}
		rpc {rpc}
		wallet {env.BENCH_GAS_KEY} {
			max_spend 1000
		}
		refunds off
		store {store}
		{app}
	}
}
http://{addr} {
	x402 /paid* {
		price $0.01
		description "The weather of a city"
		mime_type application/json
		{flow}
	}
	x402 /pass* {
		plan day $0.50 {
			ttl 24h
		}
	}
	x402 /counted* {
		plan bulk $0.50 {
			requests 1000000000
		}
	}
	x402_service
	reverse_proxy {upstream}
}
`

// bare is the configuration of the same Caddy without a paywall: what ours must be compared with. Under /told the upstream is
// told as much as by ours.
const bare = `{
	admin off
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	storage file_system {dir}
	log default {
		level WARN
	}
}
http://{addr} {
	handle /paid* {
		header Payment-Required "{header}"
		header Content-Type application/json
		respond "{body}" 402
	}
	handle /told* {
		reverse_proxy {upstream} {
			{told}
		}
	}
	handle {
		reverse_proxy {upstream}
	}
}
`

func gasKey() string { return hexutil.Encode(crypto.FromECDSA(gas.Key)) }

// openOurs starts our Caddy on a chain, with an empty ledger.
func (s *stage) openOurs(ctx context.Context, c *chain, dir string) (*shop, error) {
	o := &shop{system: partOurs}
	store, err := s.newStore(ctx, dir)
	if err != nil {
		return nil, err
	}
	o.ends = append(o.ends, store.end)
	if o.admin, err = freeAddr(ctx); err != nil {
		return nil, errors.Join(err, o.close())
	}
	flow := ""
	if s.flow != "" {
		flow = "flow " + s.flow
	}
	p, err := s.launchCaddy(ctx, "caddy", ours, dir, []string{"BENCH_GAS_KEY=" + gasKey()},
		"{admin}", o.admin, "{rpc}", c.URL(), "{seller}", payTo.Hex(), "{store}", store.line, "{app}", s.app, "{flow}", flow)
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	o.addr, o.processes = p.addr, append(o.processes, p)
	return o, nil
}

// launchCaddy starts a Caddy with a configuration in which words are replaced.
func (s *stage) launchCaddy(ctx context.Context, name, text, dir string, env []string, words ...string) (*process, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	text = strings.NewReplacer(append(words, "{addr}", addr, "{upstream}", s.upstream, "{dir}", filepath.Join(dir, "storage"))...).Replace(text)
	file := filepath.Join(dir, name+".Caddyfile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("the configuration of %s: %w", name, err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.caddy, "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), append(env, "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)...)
	return launch(ctx, dir, name, addr, cmd)
}

// openPeer starts the reference server and a facilitator for it on a chain.
func (s *stage) openPeer(ctx context.Context, c *chain, dir string) (*shop, error) {
	p := &shop{system: partPeer}
	facilitator, err := s.launchNode(ctx, dir, "facilitator", "RPC_URL="+c.URL(), "PRIVATE_KEY="+gasKey())
	if err != nil {
		return nil, err
	}
	p.processes = append(p.processes, facilitator)
	server, err := s.launchNode(ctx, dir, "server", "PAY_TO="+payTo.Hex(), "FACILITATOR_URL=http://"+facilitator.addr)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.processes, p.addr = append(p.processes, server), server.addr
	return p, nil
}

// launchNode starts a script of the peer's folder.
func (s *stage) launchNode(ctx context.Context, dir, name string, env ...string) (*process, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "node", filepath.Join(s.peer, name+".mjs"))
	cmd.Dir = s.peer
	cmd.Env = append(os.Environ(), append(env, "NODE_ENV=production", "PORT="+addr[strings.LastIndexByte(addr, ':')+1:])...)
	return launch(ctx, dir, name, addr, cmd)
}
