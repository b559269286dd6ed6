package caddymodule

import (
	"context"

	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/token"
)

// shopKeys are the keys of tokens as the management API looks after them.
type shopKeys struct{ desk *keyDesk }

func shopKeyList(list keyList, err error) (management.TokenKeyList, error) {
	if err != nil {
		e := asOperatorError(err)
		code, known := newerCodes[e.Code]
		if !known {
			return management.TokenKeyList{}, err
		}
		return management.TokenKeyList{}, &management.Error{Status: e.Status, Code: code, Message: e.Detail}
	}
	return management.ViewTokenKeys(list.Source, list.Keys), nil
}

// List implements management.TokenKeys.
func (k shopKeys) List(ctx context.Context) (management.TokenKeyList, error) {
	return shopKeyList(k.desk.list(ctx))
}

// Rotate implements management.TokenKeys.
func (k shopKeys) Rotate(ctx context.Context, r token.Rotation) (management.TokenKeyList, error) {
	return shopKeyList(k.desk.turn(ctx, r))
}

// Retire implements management.TokenKeys.
func (k shopKeys) Retire(ctx context.Context, id string, force bool) (management.TokenKeyList, error) {
	return shopKeyList(k.desk.retire(ctx, keyRetirement{Key: id, Force: force}))
}

var _ management.TokenKeys = shopKeys{}
