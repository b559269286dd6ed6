package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/x402"
)

func networkItems() []Item {
	return []Item{
		{
			ID: "network.kind", Title: "All networks are mainnets, or all are test networks",
			Why:  "Where both are offered, real goods are sold for test money; and the management API can't be locked to one network.",
			Do:   "Take the test networks out of the live configuration (`network base`), and run tests with a configuration of their own.",
			look: lookKind,
		},
		{
			ID: "network.asset", Title: "The asset is the network's USDC, under its own name",
			Why:  "Payers sign for a contract by its name and version: another contract is other money, and a wrong name refuses every payment.",
			Do:   "Leave `asset` out for a network that is known. For any other, take address, name and version from the token's issuer.",
			look: lookAsset,
		},
		{
			ID: "network.endpoints", Title: "There are at least two RPC endpoints for each network",
			Why: "While the only endpoint is away, nobody can pay.",
			Do:  "Name endpoints of two providers: rpc {env.RPC_URL} {env.RPC_URL_2}.",
			look: func(_ context.Context, s *Subject) Verdict {
				for i := range s.Networks {
					if n := &s.Networks[i]; n.Endpoints < 2 && !n.Local {
						return warn("%s has one", n.ID)
					}
				}
				return good("each has enough")
			},
		},
		{
			ID: "network.chain", Title: "Every endpoint is of the configured chain, and answers", Depth: Live,
			Why:  "An endpoint of another chain would judge payments by other accounts.",
			Do:   "Look at the address of the endpoint that is named by its place in `rpc`, and at your account with its provider.",
			look: lookChain,
		},
		{
			ID: "network.token", Title: "The asset's contract has the configured signing domain, and is not paused", Depth: Live,
			Why:  "Signatures are made for name, version, chain and contract: where one is wrong, no payment can be settled.",
			Do:   "Correct `asset`; a token that is paused is its issuer's to resume.",
			look: lookToken,
		},
		{
			ID: "clock", Title: "This machine's clock is right", Depth: Live,
			Why:  "Payments, tokens and webhooks are good for minutes: with a wrong clock they are refused, or taken too long.",
			Do:   "Let the machine follow a time server (chrony, systemd-timesyncd).",
			look: lookClock,
		},
	}
}

func lookKind(_ context.Context, s *Subject) Verdict {
	live, test := 0, 0
	for i := range s.Networks {
		if s.Networks[i].Testnet {
			test++
		} else {
			live++
		}
	}
	switch {
	case live+test == 0:
		return bad("there is no network")
	case live > 0 && test > 0:
		return bad("mainnets: %d, test networks: %d", live, test)
	case test > 0 && s.local():
		return good("a test network on this machine")
	case test > 0:
		return good("test networks alone: nothing here is real money yet")
	}
	return good("mainnets alone")
}

func lookAsset(_ context.Context, s *Subject) Verdict {
	for i := range s.Networks {
		n := &s.Networks[i]
		known, ok := x402.LookupNetwork(n.ID)
		switch {
		case n.Local:
		case !ok:
			return warn("%s is not known here: nobody but you has compared its asset %s", n.ID, n.Asset.Address)
		case known.Asset.Address != n.Asset.Address:
			return bad("the asset of %s is %s, and its USDC %s", n.ID, n.Asset.Address, known.Asset.Address)
		case known.Domain().Separator() != n.Domain().Separator():
			return bad("the asset of %s is signed as %q version %q, and its USDC as %q version %q", n.ID, n.Asset.Name, n.Asset.Version, known.Asset.Name, known.Asset.Version)
		case known.Asset.Decimals != n.Asset.Decimals: // every price would be another
			return bad("the asset of %s has %d decimals, and its USDC %d", n.ID, n.Asset.Decimals, known.Asset.Decimals)
		}
	}
	return good("as it is known")
}

func lookChain(ctx context.Context, s *Subject) Verdict {
	seen := 0
	for i := range s.Networks {
		n := &s.Networks[i]
		for k, e := range s.Live.Chains[n.ID].Endpoints(ctx) {
			switch {
			case e.Problem != "":
				return bad("endpoint %d of %s: %s", k+1, n.ID, e.Problem)
			case e.ChainID != n.ChainID:
				return bad("endpoint %d of %s is of chain %d", k+1, n.ID, e.ChainID)
			}
			seen++
		}
	}
	return good("endpoints that answer: %d", seen)
}

func lookToken(ctx context.Context, s *Subject) Verdict {
	for i := range s.Networks {
		n := &s.Networks[i]
		t, err := s.Live.Chains[n.ID].Token(ctx)
		switch {
		case err != nil:
			return bad("%s: %v", n.ID, err)
		case t.Separator != n.Domain().Separator():
			return bad("%s: the contract %s signs by another domain than %q version %q", n.ID, n.Asset.Address, n.Asset.Name, n.Asset.Version)
		case t.Decimals != n.Asset.Decimals:
			return bad("%s: the contract has %d decimals, the configuration %d", n.ID, t.Decimals, n.Asset.Decimals)
		case t.Paused:
			return bad("%s: the token is paused by its issuer", n.ID)
		}
	}
	return good("as configured")
}

// mostSkew is how much the clock may differ; answers tell the time in whole seconds.
const mostSkew = 5 * time.Second

func lookClock(ctx context.Context, s *Subject) Verdict {
	dated, wrong := 0, ""
	for i := range s.Networks {
		for k, e := range s.Live.Chains[s.Networks[i].ID].Endpoints(ctx) {
			if e.Problem != "" || !e.Dated {
				continue
			}
			dated++
			if e.Ahead.Abs() <= mostSkew {
				return good("within %s of an endpoint's", mostSkew)
			}
			wrong = fmt.Sprintf("it is %s off from endpoint %d of %s", e.Ahead.Round(time.Second), k+1, s.Networks[i].ID)
		}
	}
	if dated == 0 {
		return warn("no endpoint has told the time")
	}
	return bad("%s", wrong)
}
