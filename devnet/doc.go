// Package devnet runs a local chain in the calling process: for tests and for the demo, never for money.
//
// The chain says that it is Base Sepolia (chain id 84532). At the canonical addresses stand a token that
// behaves like USDC and a Multicall3, both written for this project (contracts/), so that unmodified x402
// clients pay on it. It speaks JSON-RPC over HTTP on a free port of the loopback interface. Any number of
// chains can run in one process.
//
// # Blocks
//
// By default a block is made as soon as a transaction waits, and takes with it all that wait; when nothing
// does, an empty one every two seconds (Options.Heartbeat), so that a call at the head sees the time of
// now. With Options.BlockTime there is one block every so often instead. Commit makes one at once, Stall
// leaves transactions waiting until Resume.
//
// # Time
//
// A block's time is in whole seconds and later than its parent's, so blocks that follow each other faster
// run ahead of the wall, and authorizations would expire before their time. The chain therefore makes no
// block of its own accord that would be more than Options.MaxLead ahead: up to so many blocks come at once,
// then one a second, each with everything that waits, until the wall catches up. What limits is the number
// of blocks, not of transactions: 500 that wait fit into one. Commit and AdvanceTime are not limited. Sign
// with the time of Now rather than of the wall.
//
// # Finality
//
// There is no consensus. A block is "safe" and "finalized" as soon as it is Options.SafeLag and
// Options.FinalizedLag blocks deep: by default at once.
package devnet
