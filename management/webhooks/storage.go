package webhooks

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
)

const (
	storageKey  = "x402/keys/webhooks.key"
	storageLock = "x402_webhook_key"
	// maxStoredKey bounds what is read as a key, in bytes.
	maxStoredKey = 4 << 10
)

// Storage is what a sealing key needs of Caddy's storage; certmagic.Storage has it all. Load of an absent key must give an error that is
// fs.ErrNotExist.
type Storage interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
}

// LoadKey gives the secret for NewKeys that s holds, and makes one if there is none. Instances that share s and start at once end up with the same.
// What can't be read is an error, never overwritten: it has sealed secrets that nobody else knows.
func LoadKey(ctx context.Context, s Storage) (secret string, err error) {
	secret, err = StoredKey(ctx, s)
	if err != nil || secret != "" {
		return secret, err
	}
	if err := s.Lock(ctx, storageLock); err != nil {
		return "", fmt.Errorf("locking the key of webhooks in storage: %w", err)
	}
	defer func() {
		if e := s.Unlock(context.WithoutCancel(ctx), storageLock); e != nil && err == nil {
			secret, err = "", fmt.Errorf("unlocking the key of webhooks in storage: %w", e)
		}
	}()
	if secret, err = StoredKey(ctx, s); err != nil || secret != "" { // another instance was first
		return secret, err
	}
	b := make([]byte, MinKeyBytes)
	_, _ = rand.Read(b) // never fails
	if err := s.Store(ctx, storageKey, []byte(base64.StdEncoding.EncodeToString(b)+"\n")); err != nil {
		return "", fmt.Errorf("storing the key of webhooks: %w", err)
	}
	// A storage's lock may go stale under us; what is stored is what counts.
	return StoredKey(ctx, s)
}

// StoredKey gives the secret for NewKeys that s holds; empty: it has none.
func StoredKey(ctx context.Context, s Storage) (string, error) {
	b, err := s.Load(ctx, storageKey)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("loading the key of webhooks from storage: %w", err)
	}
	secret := string(bytes.TrimSpace(b))
	if len(secret) < MinKeyBytes || len(b) > maxStoredKey {
		return "", fmt.Errorf("what is at %s in storage is no key of webhooks: it was cut off, or is not one of ours", storageKey)
	}
	return secret, nil
}
