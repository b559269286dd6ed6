// Package paywall is the way of a request: offer, claim, settle, grant, deliver. It knows HTTP, the ledger,
// settlers and tokens; it does not know Caddy.
//
// An [Engine] belongs to one ledger and one process: it runs the settlements that outlive their requests, the
// reconciler, the refunds, what was drawn ahead of counted plans, and it hears of revoked tokens. A [Gate] stands in front of one set of routes and decides about each request.
//
// The rules that the code names by number ("rule 6") are these:
//
//  1. The server's own requirements decide; what the client sends only selects among them.
//  2. Known first, then cheap before dear: an authorization that the ledger knows goes on where it stood.
//  3. The claim comes before any work.
//  4. The signed transaction is stored before it is broadcast.
//  5. Unknown is not 402: an unknown outcome answers 503, and the same header gets what was paid for.
//  6. A payer is never charged twice for what it did not get: a fresh, valid authorization is first of all
//     proof of who pays, and serves an unserved payment or a live plan of that payer before anything is claimed.
//  7. A signature becomes public when it is broadcast: only the byte-identical payment header with the echoed
//     random value resumes a payment.
//  8. Settlement does not hang on the client's connection.
//  9. The body streams.
//  10. Fail closed.
//  11. One gate: the same request that Caddy routed.
//  12. Nothing leaks: neither payment headers upstream, nor forged ones from the client.
//  13. An upstream that fails after payment passes its own status through.
package paywall
