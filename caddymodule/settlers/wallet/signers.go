package wallet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

func (w *Wallet) loadSigners(ctx caddy.Context) error {
	if len(w.SignersRaw) == 0 {
		return nil
	}
	loaded, err := ctx.LoadModule(w, "SignersRaw")
	if err != nil {
		return fmt.Errorf("loading the signers: %w", err)
	}
	for _, m := range loaded.([]any) {
		s, ok := m.(caddymodule.SignerModule)
		if !ok {
			return fmt.Errorf("%T is no signer", m)
		}
		w.signers = append(w.signers, s)
	}
	return nil
}

func (w *Wallet) joinSigners(c caddymodule.SettlerContext) (names []string, err error) {
	for i, s := range w.signers {
		name, err := s.Join(caddymodule.SignerContext{Local: c.Local})
		if err != nil {
			return nil, fmt.Errorf("signer %d: %w", i+1, err)
		}
		if slices.Contains(names, name) {
			return nil, fmt.Errorf("signer %d is there twice: %s", i+1, name)
		}
		names = append(names, name)
	}
	return names, nil
}

// open gives all signers. Services are asked for theirs.
func (w *Wallet) open(ctx context.Context) (all []wallet.Signer, err error) {
	all = slices.Clone(w.keys)
	for i, m := range w.signers {
		s, err := m.Open(ctx)
		if err != nil {
			for _, opened := range all {
				if c, ok := opened.(io.Closer); ok {
					err = errors.Join(err, c.Close())
				}
			}
			return nil, fmt.Errorf("signer %d: %w", i+1, err)
		}
		all = append(all, s)
	}
	return all, nil
}
