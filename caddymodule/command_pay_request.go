package caddymodule

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/x402"
)

// prepare turns the flags into a request and a client. What can fail fails here, before anything is sent.
func (p *payer) prepare(ctx context.Context, args []string) (*http.Request, *client.Client, error) {
	if err := p.check(args); err != nil {
		return nil, nil, err
	}
	c := &client.Client{
		Plan: p.plan, Now: p.now, OnOffer: p.onOffer, OnSigned: p.onSigned, OnRetry: p.onRetry,
		MaxRetryTime: p.timeout, MaxRetries: 1 << 20, // --timeout bounds both
	}
	var err error
	if c.HTTP, err = p.httpClient(); err != nil {
		return nil, nil, err
	}
	var req *http.Request
	if p.resume == "" {
		if req, err = p.request(ctx, args[0]); err != nil {
			return nil, nil, err
		}
		p.req = req
		if c.Limits, err = p.limits(); err != nil {
			return nil, nil, err
		}
		if c.Key, err = p.key(); err != nil {
			return nil, nil, err
		}
	}
	return req, c, p.openOutput()
}

// check refuses flags that don't go together. It repeats no argument: one of them may be a key in the wrong place.
func (p *payer) check(args []string) error {
	switch {
	case p.resume != "" && (p.methodSet || p.dataSet || len(p.headers) > 0 || p.dryRun || p.save != ""):
		return errors.New("--resume sends the request that was saved; leave out --request, --header, --data, --dry-run and --save-payment")
	case p.resume != "" && len(args) > 0:
		return errors.New("--resume sends the request that was saved; leave out the URL")
	case p.resume == "" && len(args) != 1:
		return fmt.Errorf("one URL is needed, not %d; see caddy x402 pay --help", len(args))
	case p.json && p.output == "-":
		return errors.New("--json and --output - both write to the standard output; choose one")
	case p.timeout <= 0:
		return errors.New("--timeout must be above zero, such as 3m")
	}
	if p.keyFile == "-" && slices.Contains(p.data, "@-") {
		return errors.New("the standard input can't be both key and body; read one of them from a file")
	}
	return nil
}

func (p *payer) httpClient() (*http.Client, error) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if p.cacert != "" {
		pem, err := os.ReadFile(p.cacert)
		if err != nil {
			return nil, fmt.Errorf("reading --cacert: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--cacert %s: no certificate in PEM form in it", p.cacert)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t}, nil
}

// request is what curl would make of the same flags.
func (p *payer) request(ctx context.Context, target string) (*http.Request, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the URL must be absolute, such as https://api.example.com/x")
	}
	body, err := p.requestBody()
	if err != nil {
		return nil, err
	}
	method := p.method
	if method == "" {
		method = http.MethodGet
		if p.dataSet {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the method or the URL can't be sent")
	}
	p.sent = body
	if !p.dataSet {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	} else {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("User-Agent", "caddy-x402")
	req.Header.Set("Accept", "*/*")
	return req, p.setHeaders(req)
}

func (p *payer) setHeaders(req *http.Request) error {
	seen := make(map[string]bool)
	for _, h := range p.headers {
		name, value, ok := strings.Cut(h, ":")
		name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !ok || name == "" {
			return errors.New(`--header takes "Name: value"`)
		}
		if name == "Host" {
			req.Host = value
			continue
		}
		if !seen[name] {
			req.Header.Del(name) // the first one of a name replaces a default
		}
		seen[name] = true
		req.Header.Add(name, value)
	}
	return nil
}

func (p *payer) requestBody() ([]byte, error) {
	parts := make([][]byte, 0, len(p.data))
	for _, d := range p.data {
		part := []byte(d)
		if name, ok := strings.CutPrefix(d, "@"); ok {
			var err error
			if name == "-" {
				part, err = io.ReadAll(p.in)
			} else {
				part, err = os.ReadFile(name)
			}
			if err != nil {
				return nil, fmt.Errorf("reading --data: %w", err)
			}
		}
		parts = append(parts, part)
	}
	return bytes.Join(parts, []byte("&")), nil
}

// limits are the assets that may be spent: of the networks named, or else of the test networks only.
func (p *payer) limits() ([]client.Limit, error) {
	var networks []x402.Network
	for _, name := range p.networks {
		n, ok := x402.LookupNetwork(name)
		if !ok {
			return nil, fmt.Errorf("--network %q is not known; write one of %s, or name a token on it with --asset", name, knownNetworks())
		}
		networks = append(networks, n)
	}
	for _, s := range p.assets {
		n, err := parseAssetFlag(s)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	if len(networks) == 0 {
		networks = client.Testnets()
	}
	limits, err := client.Limits(p.maxAmount, networks...)
	if err != nil {
		return nil, fmt.Errorf("--max-amount: %w", err)
	}
	return limits, nil
}

func knownNetworks() string {
	var names []string
	for _, n := range x402.Networks() {
		name := n.V1Name
		if name == "" {
			name = n.ID
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// parseAssetFlag reads NETWORK/ADDRESS/DECIMALS. The token's EIP-712 domain is taken from the offer.
func parseAssetFlag(s string) (x402.Network, error) {
	bad := fmt.Errorf("--asset %q: write NETWORK/ADDRESS/DECIMALS, such as eip155:31337/0x5FbDB2315678afecb367f032d93F642f64180aa3/6", s)
	network, rest, _ := strings.Cut(s, "/")
	address, places, ok := strings.Cut(rest, "/")
	decimals, err := strconv.ParseUint(places, 10, 8)
	if !ok || err != nil || decimals > 36 || !common.IsHexAddress(address) {
		return x402.Network{}, bad
	}
	n, known := x402.LookupNetwork(network)
	if !known {
		chainID, err := x402.ParseCAIP2(network)
		if err != nil {
			return x402.Network{}, bad
		}
		n = x402.Network{ID: network, V1Name: x402.V1Name(chainID), ChainID: chainID}
	}
	n.Asset = x402.Asset{Address: common.HexToAddress(address), Symbol: "units", Decimals: uint8(decimals)}
	return n, nil
}

var keyForm = regexp.MustCompile(`^(0[xX])?[0-9a-fA-F]{64}$`)

// key reads the private key. No error of it shows a part of the key, or of what stands where a key should be.
func (p *payer) key() (*ecdsa.PrivateKey, error) {
	if keyForm.MatchString(p.keyEnv) || keyForm.MatchString(p.keyFile) {
		return nil, errors.New("a key does not belong on a command line, where others can read it; put it into a file or a variable, and name that")
	}
	if p.keyFile != "" && p.keyEnvSet {
		return nil, errors.New("--key-env and --key-file both name a key; choose one")
	}
	text, from, err := p.keyText()
	if err != nil {
		return nil, err
	}
	if text == "" && p.dryRun && p.keyFile == "" {
		return nil, nil //nolint:nilnil // a dry run signs nothing
	}
	if text == "" {
		return nil, fmt.Errorf("%s holds no private key; see --key-env and --key-file", from)
	}
	if !keyForm.MatchString(text) {
		return nil, fmt.Errorf("%s does not hold a private key: 64 hex digits, with or without 0x", from)
	}
	key, err := crypto.HexToECDSA(strings.TrimPrefix(strings.ToLower(text), "0x"))
	if err != nil {
		return nil, fmt.Errorf("%s holds a number that is no private key", from)
	}
	return key, nil
}

func (p *payer) keyText() (text, from string, err error) {
	var raw []byte
	switch p.keyFile {
	case "":
		return strings.TrimSpace(os.Getenv(p.keyEnv)), "environment variable " + p.keyEnv, nil
	case "-":
		from = "the standard input"
		raw, err = io.ReadAll(io.LimitReader(p.in, 4096))
	default:
		from = "file " + p.keyFile
		if info, statErr := os.Stat(p.keyFile); statErr == nil && info.Mode().Perm()&0o077 != 0 && info.Mode().IsRegular() {
			p.complain("warning: %s can be read by others; chmod 600 it", from)
		}
		raw, err = os.ReadFile(p.keyFile)
	}
	if err != nil {
		return "", from, fmt.Errorf("reading the key: %w", err)
	}
	return strings.TrimSpace(string(raw)), from, nil
}
