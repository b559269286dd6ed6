package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

const (
	storageKey  = "x402/keys/token.pem"
	storageLock = "x402_token_keys"

	pemUntil = "Verify-Until"
)

// Storage is what Load needs of Caddy's storage; certmagic.Storage has it all. Load of an absent key must give an
// error that is fs.ErrNotExist.
type Storage interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
}

// Load gives the keyring that s holds, and makes one with a new Ed25519 key if there is none. Instances that share s and
// start at once end up with the same key. What can't be read is an error, never overwritten: a new key would void
// every token that was sold.
func Load(ctx context.Context, s Storage) (*Keyring, error) {
	ring, err := load(ctx, s)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, err
	}
	return create(ctx, s)
}

func load(ctx context.Context, s Storage) (*Keyring, error) {
	data, err := s.Load(ctx, storageKey)
	if err != nil {
		return nil, fmt.Errorf("loading the token keys from storage: %w", err)
	}
	ring, err := unmarshalKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("reading the token keys at %s in storage: %w", storageKey, err)
	}
	return ring, nil
}

func create(ctx context.Context, s Storage) (ring *Keyring, err error) {
	if err := s.Lock(ctx, storageLock); err != nil {
		return nil, fmt.Errorf("locking the token keys in storage: %w", err)
	}
	defer func() {
		if e := s.Unlock(context.WithoutCancel(ctx), storageLock); e != nil && err == nil {
			ring, err = nil, fmt.Errorf("unlocking the token keys in storage: %w", e)
		}
	}()
	// Another instance may have been first.
	if ring, err = load(ctx, s); !errors.Is(err, fs.ErrNotExist) {
		return ring, err
	}
	key, err := GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	data, err := key.MarshalPEM()
	if err != nil {
		return nil, err
	}
	if err := s.Store(ctx, storageKey, data); err != nil {
		return nil, fmt.Errorf("storing the token key: %w", err)
	}
	// A storage's lock may go stale under us; what is stored is what counts.
	return load(ctx, s)
}

// marshalKeyring writes the ring's asymmetric keys as PEM: the signing key in full, then the public halves of those that
// only verify, each with the time until when.
func marshalKeyring(r *Keyring) ([]byte, error) {
	keys := r.Keys()
	out, err := keys[0].MarshalPEM()
	if err != nil {
		return nil, err
	}
	for _, k := range keys[1:] {
		der, err := x509.MarshalPKIXPublicKey(k.verify)
		if err != nil {
			return nil, fmt.Errorf("encoding the token key %s: %w", k.id, err)
		}
		block := &pem.Block{Type: "PUBLIC KEY", Bytes: der}
		if !k.until.IsZero() {
			block.Headers = map[string]string{pemUntil: k.until.UTC().Format(time.RFC3339)}
		}
		out = append(out, pem.EncodeToMemory(block)...)
	}
	return out, nil
}

func unmarshalKeyring(data []byte) (*Keyring, error) {
	var keys []Key
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("broken PEM")
		}
		key, err := keyFromBlock(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return NewKeyring(keys...)
}

func keyFromBlock(block *pem.Block) (Key, error) {
	if block.Type != "PUBLIC KEY" {
		private, err := parsePrivate(block)
		if err != nil {
			return Key{}, err
		}
		return newKey(private)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("reading a retired token key: %w", err)
	}
	key, err := newPublicKey(public)
	if err != nil {
		return Key{}, err
	}
	if until, ok := block.Headers[pemUntil]; ok {
		if key.until, err = time.Parse(time.RFC3339, until); err != nil {
			return Key{}, fmt.Errorf("reading a retired token key's end: %w", err)
		}
	}
	return key, nil
}
