package devnet

import "go.uber.org/goleak"

// LeakOptions tells goleak of what go-ethereum leaves behind when a chain was closed: workers that it
// starts once per process and never ends, and one of the node's peer database that ends a second later.
func LeakOptions() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/ethereum/go-ethereum/core.(*txSenderCacher).cache"),
		goleak.IgnoreAnyFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
	}
}
