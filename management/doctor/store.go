package doctor

import (
	"context"
	"strings"
	"time"
)

func storeItems() []Item {
	return []Item{
		{
			ID: "store.durable", Title: "Payments are recorded where a restart does not lose them",
			Why:  "Without its ledger Caddy does not know who has paid, and pays nothing back.",
			Do:   "`store sqlite` on a local disk (in a container: on a volume), `store postgres`, or `store redis` with appendonly, appendfsync always and noeviction.",
			look: lookDurable,
		},
		{
			ID: "store.shared", Title: "All instances share one ledger and one storage",
			Why:  "Instances with ledgers of their own take a payment twice, and tokens of one are refused by another.",
			Do:   "`store postgres` or `store redis`, and a `storage` that all reach, or the same `token_key` everywhere. Say how many there are by --instances.",
			look: lookShared,
		},
		{
			ID: "store.writes", Title: "The ledger answers, and takes writes", Depth: Live,
			Why: "Caddy takes no payment that it can't write down first.",
			Do:  "Start the ledger's server, and see stores.md for what it must be set to: what it is set to is checked when it is opened.",
			look: func(ctx context.Context, s *Subject) Verdict {
				if err := s.Live.Ledger(ctx); err != nil {
					return bad("%v", err)
				}
				return good("it does")
			},
		},
		{
			ID: "audit.kept", Title: "The audit trail is kept for as long as somebody may ask",
			Why: "Tax offices and chargeback disputes ask for years, and what retention removed from Redis is gone.",
			Do:  "Leave `retention` out, or make it 90d at least and export before: caddy x402 audit export.",
			look: func(_ context.Context, s *Subject) Verdict {
				const least = 90 * 24 * time.Hour
				if s.Retention > 0 && s.Retention < least {
					return bad("retention is %s", s.Retention)
				}
				return good("it is")
			},
		},
	}
}

// volatile are folders whose files go with the machine's memory.
var volatile = [...]string{"/dev/shm/", "/run/", "/var/run/"}

func lookDurable(_ context.Context, s *Subject) Verdict {
	if s.Store.Careless {
		return bad("%s may forget the last second: durable is off", s.Store.Kind)
	}
	if s.Store.Kind != "sqlite" {
		return good("%s, whose settings are checked when it is opened", s.Store.Kind)
	}
	if s.Store.Path == ":memory:" || strings.Contains(s.Store.Path, "mode=memory") {
		return bad("the ledger is in memory")
	}
	for _, folder := range volatile {
		if strings.HasPrefix(s.Store.Path, folder) {
			return bad("%s is in memory: nothing in %s outlives the machine", s.Store.Path, folder)
		}
	}
	return good("sqlite with a write-ahead log, each commit on the disk")
}

func lookShared(_ context.Context, s *Subject) Verdict {
	switch {
	case s.Instances < 2:
		return good("one instance")
	case s.Store.Kind == "sqlite":
		return bad("instances: %d, and the ledger is a file of one machine", s.Instances)
	case s.Store.Files && !s.Store.TokenKeys:
		return bad("instances: %d, and Caddy's storage, where the keys of tokens are, is a folder of one machine", s.Instances)
	}
	return good("instances: %d, with one %s", s.Instances, s.Store.Kind)
}
