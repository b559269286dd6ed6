package management

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
)

// keyTypes are the types of events of API keys.
var keyTypes = [...]string{webhooks.TypeKeyRotated, webhooks.TypeKeyRevoked, webhooks.TypeKeyRotationDue}

// keyTold is what an event tells of an API key.
type keyTold struct {
	KeyID     string    `json:"keyId"`
	Prefix    string    `json:"prefix"`
	Label     string    `json:"label"`
	Mode      string    `json:"mode"`
	Network   string    `json:"network"`
	CreatedAt time.Time `json:"createdAt"`
	// Of a key that was rotated.
	SuccessorID   string     `json:"successorId,omitempty"`
	OverlapEndsAt *time.Time `json:"overlapEndsAt,omitempty"`
}

// keyEvent is the event of a type that has happened to a key; its time is zero if it has not. It is the same whoever makes it and whenever: its id and time
// are the key's.
func keyEvent(k *apikey.Key, typ string) (webhooks.Event, error) {
	ev := webhooks.Event{Type: typ, Live: k.Mode == apikey.Live}
	d := keyTold{KeyID: k.ID, Prefix: k.Prefix, Label: k.Label, Mode: string(k.Mode), Network: k.Mode.Network(), CreatedAt: k.CreatedAt.UTC()}
	word := ""
	switch typ {
	case webhooks.TypeKeyRotated:
		ev.At, word = k.RotatedAt, "rotated"
		d.SuccessorID, d.OverlapEndsAt = k.RotatedTo, moment(k.OverlapEndsAt)
	case webhooks.TypeKeyRevoked:
		ev.At, word = k.RevokedAt, "revoked"
	case webhooks.TypeKeyRotationDue:
		ev.At, word = k.RotationDueAt, "rotation_due"
	}
	ev.ID = "evt_" + k.ID + "_" + word
	var err error
	if ev.Data, err = json.Marshal(&d); err != nil {
		return ev, fmt.Errorf("encoding what has happened to an API key: %w", err)
	}
	return ev, nil
}

// tellOfKey tells webhooks of what was just done to a key. If that fails, TellKeys does it later.
func (a *API) tellOfKey(ctx context.Context, x *exchange, k *apikey.Key, typ string) {
	if x.shop.Webhooks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout) // it was done, whether the caller waits or not
	defer cancel()
	ev, err := keyEvent(k, typ)
	if err == nil {
		err = x.shop.Webhooks.Publish(ctx, ev)
	}
	if err != nil {
		a.log.WarnContext(ctx, "webhooks can't be told of an API key now; that is tried again within the hour", slog.String("key", k.ID),
			slog.String("event", typ), slog.Any("error", err))
	}
}

// keysPage is how many keys TellKeys reads at once.
const keysPage = 100

// TellKeys tells webhooks what has happened to API keys since then, once more: so what an instance has done that died before it could tell is told by the
// next one that looks. Nothing is told twice: what is in the log of deliveries stays as it is, and what is older than that is left out.
func TellKeys(ctx context.Context, keys *apikey.Keys, hooks *webhooks.Service, since time.Time) error {
	if kept := keys.Store.Now().Add(-hooks.Keeps()); since.Before(kept) {
		since = kept
	}
	for after := ""; ; {
		list, err := keys.List(ctx, "", after, keysPage)
		if err != nil {
			return err
		}
		for i := range list {
			after = list[i].ID
			for _, typ := range keyTypes {
				ev, err := keyEvent(&list[i], typ)
				if err != nil {
					return err
				}
				if ev.At.Before(since) {
					continue
				}
				if err := hooks.Publish(ctx, ev); err != nil {
					return fmt.Errorf("telling of an API key: %w", err)
				}
			}
		}
		if len(list) < keysPage {
			return nil
		}
	}
}
