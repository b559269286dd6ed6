package token

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

const (
	storageKey  = "x402/keys/token.pem"
	storageLock = "x402_token_keys"

	// maxRing bounds what is read as a ring, in bytes: some hundred keys.
	maxRing = 256 << 10
)

// The headers of a key's PEM block say its turn. Whoever does not know them signs with the first key and verifies with all, which is
// right at any time but the change itself.
const (
	pemCreated = "Created"
	pemFrom    = "Sign-From"
	pemUntil   = "Verify-Until"
	pemLongest = "Longest-Token"
	// pemRoot keeps what was derived from a key that signs no more: it opens and checks what was sealed, and can sign nothing.
	pemRoot = "Derivation-Root"
)

// Storage is what a ring needs of Caddy's storage; certmagic.Storage has it all. Load of an absent key must give an
// error that is fs.ErrNotExist, and Store must leave the old or the new value, whatever happens meanwhile.
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
	ring, err := Read(ctx, s)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, err
	}
	return change(ctx, s, func(keys []Key) ([]Key, error) {
		if len(keys) > 0 { // another instance was first
			return nil, nil
		}
		key, err := GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		key.created = time.Now().Truncate(time.Second) // for people: nothing is decided by it
		return []Key{key}, nil
	})
}

// Read gives the keyring that s holds, and an error that is fs.ErrNotExist if there is none.
func Read(ctx context.Context, s Storage) (*Keyring, error) {
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

// Refresh takes over what s holds now, and reports whether that is different. What can't be read leaves the ring as it is.
func (r *Keyring) Refresh(ctx context.Context, s Storage) (changed bool, err error) {
	next, err := Read(ctx, s)
	if err != nil {
		return false, err
	}
	if bytes.Equal(next.keys.Load().raw, r.keys.Load().raw) {
		return false, nil
	}
	r.Replace(next)
	return true, nil
}

// change has f make new keys of those in s, none if there is no ring yet, and stores them in one step: who dies in the middle leaves the
// old ring. f gives nil to change nothing. What is stored then is given.
func change(ctx context.Context, s Storage, f func([]Key) ([]Key, error)) (ring *Keyring, err error) {
	if err := s.Lock(ctx, storageLock); err != nil {
		return nil, fmt.Errorf("locking the token keys in storage: %w", err)
	}
	defer func() {
		if e := s.Unlock(context.WithoutCancel(ctx), storageLock); e != nil && err == nil {
			ring, err = nil, fmt.Errorf("unlocking the token keys in storage: %w", e)
		}
	}()
	ring, err = Read(ctx, s)
	var had []Key
	switch {
	case err == nil:
		had = ring.Keys()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	keys, err := f(had)
	if err != nil || keys == nil {
		return ring, err
	}
	data, err := marshalKeys(keys)
	if err != nil {
		return nil, err
	}
	if _, err := unmarshalKeyring(data); err != nil { // nothing is stored that can't be read back
		return nil, fmt.Errorf("storing the token keys: %w", err)
	}
	if err := s.Store(ctx, storageKey, data); err != nil {
		return nil, fmt.Errorf("storing the token keys: %w", err)
	}
	// A storage's lock may go stale under us; what is stored is what counts.
	return Read(ctx, s)
}

// marshalKeys writes asymmetric keys as PEM, those that can sign in full and of the others the public halves, in the order of their turns.
func marshalKeys(keys []Key) ([]byte, error) {
	set, err := newKeySet(keys)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, k := range set.keys {
		block, err := k.block()
		if err != nil {
			return nil, err
		}
		out = append(out, pem.EncodeToMemory(block)...)
	}
	return out, nil
}

func (k Key) block() (*pem.Block, error) {
	if k.isSecret() {
		return nil, errors.New("a secret is not written as PEM")
	}
	block := &pem.Block{Type: "PUBLIC KEY", Headers: map[string]string{}}
	var err error
	if k.sign != nil {
		block.Type = "PRIVATE KEY"
		block.Bytes, err = x509.MarshalPKCS8PrivateKey(k.sign)
	} else {
		block.Bytes, err = x509.MarshalPKIXPublicKey(k.verify)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding the token key %s: %w", k.id, err)
	}
	for name, t := range map[string]time.Time{pemCreated: k.created, pemFrom: k.from, pemUntil: k.until} {
		if !t.IsZero() {
			block.Headers[name] = t.UTC().Format(time.RFC3339)
		}
	}
	if k.longest > 0 {
		block.Headers[pemLongest] = k.longest.String()
	}
	if k.sign == nil && k.root != nil {
		block.Headers[pemRoot] = base64.StdEncoding.EncodeToString(k.root)
	}
	return block, nil
}

func unmarshalKeyring(data []byte) (*Keyring, error) {
	if len(data) > maxRing {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), maxRing)
	}
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
	if len(keys) == 0 || keys[0].sign == nil {
		return nil, errNotFirst
	}
	ring, err := newKeyring(keys)
	if err != nil {
		return nil, err
	}
	ring.keys.Load().raw = data
	return ring, nil
}

func keyFromBlock(block *pem.Block) (key Key, err error) {
	if block.Type == "PUBLIC KEY" {
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return Key{}, fmt.Errorf("reading a retired token key: %w", err)
		}
		if key, err = newPublicKey(public); err != nil {
			return Key{}, err
		}
	} else {
		private, err := parsePrivate(block)
		if err != nil {
			return Key{}, err
		}
		if key, err = newKey(private); err != nil {
			return Key{}, err
		}
	}
	for name, t := range map[string]*time.Time{pemCreated: &key.created, pemFrom: &key.from, pemUntil: &key.until} {
		if text, ok := block.Headers[name]; ok {
			if *t, err = time.Parse(time.RFC3339, text); err != nil {
				return Key{}, fmt.Errorf("reading %s of a token key: %w", name, err)
			}
		}
	}
	if text, ok := block.Headers[pemLongest]; ok {
		if key.longest, err = time.ParseDuration(text); err != nil {
			return Key{}, fmt.Errorf("reading %s of a token key: %w", pemLongest, err)
		}
	}
	if text, ok := block.Headers[pemRoot]; ok && key.sign == nil {
		if key.root, err = base64.StdEncoding.DecodeString(text); err != nil || len(key.root) != rootBytes {
			return Key{}, fmt.Errorf("reading %s of a token key: it has %d bytes (%w)", pemRoot, len(key.root), errors.Join(errNoRoot, err))
		}
	}
	return key, nil
}
