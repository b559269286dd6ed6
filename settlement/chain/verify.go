package chain

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

// MismatchError says that the chain is not what the configuration says. No payment could be made there, or it
// would be made in the wrong coin.
type MismatchError struct {
	// What differs: "chain id", "token name"…
	What string
	// Host is the endpoint that answered, where it is one endpoint's answer.
	Host string
	// Configured and Chain are what the two sides say.
	Configured, Chain string
}

// Error says which side says what.
func (e *MismatchError) Error() string {
	side := "the chain"
	if e.Host != "" {
		side = "the endpoint " + e.Host
	}
	return fmt.Sprintf("chain: %s: the configuration says %s, %s says %s", e.What, e.Configured, side, e.Chain)
}

// Verify asks once whether the chain is what n says: the chain id of each endpoint, and the token's code,
// name, version, decimals and domain separator. A difference is a *MismatchError; a chain that does not
// answer an error that wraps settlement.ErrUnavailable. One endpoint that answers is enough.
func (c *Client) Verify(ctx context.Context, n x402.Network) error {
	if err := c.verifyIDs(ctx, n.ChainID); err != nil {
		return err
	}
	var code, name, version, decimals, separator []byte
	token := func(data []byte, result *[]byte) *Query {
		return CallQuery(Message{To: n.Asset.Address, Data: data, Gas: readGas}, result)
	}
	qCode, qName, qVersion := CodeQuery(n.Asset.Address, &code), token(x402.NameCalldata(), &name), token(x402.VersionCalldata(), &version)
	qDecimals, qSeparator := token(x402.DecimalsCalldata(), &decimals), token(x402.DomainSeparatorCalldata(), &separator)
	if _, err := c.Ask(ctx, qCode, qName, qVersion, qDecimals, qSeparator); err != nil {
		return err
	}
	if len(code) == 0 {
		return &MismatchError{What: "token", Configured: n.Asset.Address.Hex(), Chain: "that there is no contract at this address"}
	}
	checks := []struct{ what, configured, chain string }{
		{"token name", strconv.Quote(n.Asset.Name), textAnswer(qName, name)},
		{"token version", strconv.Quote(n.Asset.Version), textAnswer(qVersion, version)},
		{"token decimals", strconv.Itoa(int(n.Asset.Decimals)), numberAnswer(qDecimals, decimals)},
		{"EIP-712 domain separator", n.Domain().Separator().Hex(), hashAnswer(qSeparator, separator)},
	}
	for _, ch := range checks {
		if ch.configured != ch.chain {
			return &MismatchError{What: ch.what, Configured: ch.configured, Chain: ch.chain}
		}
	}
	return nil
}

// readGas bounds calls of views: a token that needs more is broken or hostile.
const readGas = 1_000_000

// verifyIDs asks all endpoints, not only the first: one that is on another chain must not wait for its turn to do harm.
func (c *Client) verifyIDs(ctx context.Context, id uint64) error {
	order, _, err := c.order()
	if err != nil {
		return err
	}
	var problems []error
	answered := 0
	for _, e := range order {
		err := c.verifyID(ctx, e, id)
		if _, ok := errors.AsType[*MismatchError](err); ok {
			return err
		}
		if err != nil {
			c.blame(ctx, e, err)
			problems = append(problems, fmt.Errorf("%s: %w", e.host, err))
			continue
		}
		answered++
	}
	if answered == 0 {
		return &unavailableError{problems}
	}
	return nil
}

// verifyID asks e for its chain id.
func (c *Client) verifyID(ctx context.Context, e *endpoint, want uint64) error {
	var id uint64
	q := IDQuery(&id)
	raws, errs, err := c.exchange(ctx, e, []*Query{q})
	if err != nil {
		return err
	}
	if errs[0] != nil {
		return errs[0]
	}
	if err := q.decode(raws[0]); err != nil {
		return fmt.Errorf("unreadable answer: %w", e.redact(err))
	}
	if id != want {
		return &MismatchError{What: "chain id", Host: e.host, Configured: strconv.FormatUint(want, 10), Chain: strconv.FormatUint(id, 10)}
	}
	return nil
}

func textAnswer(q *Query, ret []byte) string {
	s, err := x402.ParseString(ret)
	if q.Err != nil || err != nil {
		return "nothing: it has no such function"
	}
	return printable(strconv.Quote(s))
}

func numberAnswer(q *Query, ret []byte) string {
	n, err := x402.ParseUint256(ret)
	if q.Err != nil || err != nil {
		return "nothing: it has no such function"
	}
	return n.Dec()
}

func hashAnswer(q *Query, ret []byte) string {
	if q.Err != nil || len(ret) != common.HashLength {
		return "nothing: it has no such function"
	}
	return common.Hash(ret).Hex()
}
