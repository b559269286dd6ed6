// Package kms is the Caddy module x402.signers.aws_kms: a wallet's key that AWS KMS keeps.
package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement/signer/kms"
)

func init() {
	caddy.RegisterModule(new(Signer))
}

// Signer signs with a key of AWS KMS, which never leaves it. The key has the spec `ECC_SECG_P256K1` and the usage `SIGN_VERIFY`; who
// signs needs `kms:GetPublicKey` and `kms:Sign`.
//
//	signer aws_kms alias/gas {
//		region  eu-central-1
//		address 0x209693Bc6afc0C5328bA36FaF03C514EF312287C
//	}
type Signer struct {
	// The key: its id, its ARN, its alias (`alias/gas`), or the alias' ARN.
	Key string `json:"key"`

	// The key's region. Default: that of the ARN, or else the environment's (`AWS_REGION`, the profile).
	Region string `json:"region,omitempty"`

	// The service's address, if it is not the region's usual one. It has https, unless it is on this machine.
	Endpoint string `json:"endpoint,omitempty"`

	// Credentials. Default: what AWS' SDK finds in the environment, in its files, or as the role of the machine, which is
	// best. Write placeholders for what is secret: `{env.NAME}`, `{file./path}`.
	AccessKeyID     string `json:"access_key_id,omitempty"`
	SecretAccessKey string `json:"secret_access_key,omitempty"`
	SessionToken    string `json:"session_token,omitempty"`

	// The account that the key must have. With it, no mix-up of keys, regions or accounts makes another wallet of this one.
	Address string `json:"address,omitempty"`

	// How long a signature may take, with all tries. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	config kms.Config
}

// CaddyModule implements caddy.Module.
func (*Signer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "x402.signers.aws_kms", New: func() caddy.Module { return new(Signer) }}
}

// Provision implements caddy.Provisioner. It asks nobody.
func (s *Signer) Provision(caddy.Context) error {
	if s.Key == "" {
		return errors.New("key is missing; write `signer aws_kms <id, ARN or alias of the key>`")
	}
	if s.Timeout < 0 {
		return errors.New("timeout is negative; write one such as 10s")
	}
	s.config = kms.Config{Timeout: time.Duration(s.Timeout)}
	for _, f := range []struct {
		name, value string
		into        *string
	}{
		{"key", s.Key, &s.config.Key},
		{"region", s.Region, &s.config.Region},
		{"endpoint", s.Endpoint, &s.config.Endpoint},
		{"access_key_id", s.AccessKeyID, &s.config.AccessKeyID},
	} {
		if f.value == "" {
			continue
		}
		var err error
		if *f.into, err = caddymodule.Resolve(f.name, f.value); err != nil {
			return err
		}
	}
	if err := s.provisionSecrets(); err != nil {
		return err
	}
	if s.Address != "" {
		var err error
		if s.config.Address, err = caddymodule.ParseAddress("address", s.Address); err != nil {
			return err
		}
	}
	return s.config.Validate()
}

func (s *Signer) provisionSecrets() error {
	for _, f := range []struct {
		name, value string
		into        *string
	}{
		{"secret_access_key", s.SecretAccessKey, &s.config.SecretAccessKey},
		{"session_token", s.SessionToken, &s.config.SessionToken},
	} {
		if f.value == "" {
			continue
		}
		var err error
		if *f.into, err = caddymodule.Secret(f.name, f.value, s.config.Loopback()); err != nil {
			return err
		}
	}
	return nil
}

// Join implements caddymodule.SignerModule.
func (s *Signer) Join(caddymodule.SignerContext) (string, error) { return s.config.ID(), nil }

// Open implements caddymodule.SignerModule.
func (s *Signer) Open(ctx context.Context) (caddymodule.Signer, error) {
	opened, err := kms.Open(ctx, s.config)
	if err != nil {
		return nil, fmt.Errorf("signer aws_kms: %w", err)
	}
	return opened, nil
}

// UnmarshalCaddyfile reads
//
//	aws_kms <key> {
//		region            <region>
//		endpoint          <url>
//		access_key_id     <id>
//		secret_access_key <placeholder>
//		session_token     <placeholder>
//		address           <address>
//		timeout           <duration>
//	}
func (s *Signer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	if !d.AllArgs(&s.Key) {
		return d.Errf("the signer aws_kms takes one key; write `signer aws_kms <id, ARN or alias of the key>`")
	}
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if seen[name] {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
		var value string
		if !d.AllArgs(&value) {
			return d.ArgErr()
		}
		if err := s.set(d, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (s *Signer) set(d *caddyfile.Dispenser, name, value string) error {
	switch name {
	case "region":
		s.Region = value
	case "endpoint":
		s.Endpoint = value
	case "access_key_id":
		s.AccessKeyID = value
	case "secret_access_key":
		s.SecretAccessKey = value
	case "session_token":
		s.SessionToken = value
	case "address":
		s.Address = value
	case "timeout":
		v, err := caddy.ParseDuration(value)
		if err != nil || v < time.Millisecond {
			return d.Errf("'%s' is not a duration; write one such as 10s", value)
		}
		s.Timeout = caddy.Duration(v)
	default:
		return d.Errf("the signer aws_kms has no setting %q; it has region, endpoint, access_key_id, secret_access_key, session_token, address and timeout", name)
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner        = (*Signer)(nil)
	_ caddyfile.Unmarshaler    = (*Signer)(nil)
	_ caddymodule.SignerModule = (*Signer)(nil)
)
