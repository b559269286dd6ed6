package caddymodule

const payHelp = `
Sends a request like curl does and, where the answer is 402 Payment Required with
an x402 offer (version 2 or 1), signs one payment in USDC and sends the request
again with it. The answer's body goes to the standard output; what happens on the
way is told on the standard error, if that is a terminal.

THE KEY is the hex form of an account's private key. It is read from the environment
variable X402_PRIVATE_KEY (--key-env names another), from a file (--key-file FILE) or
from the standard input (--key-file -). There is no flag that takes the key itself: it
would end in your shell's history. Use an account that holds pocket money only.

LIMITS. At most --max-amount is paid, $0.10 unless you say otherwise; more is refused
with exit code 3, and nothing is signed. Only test networks are paid on by default; money
of real worth is spent when you name its network: --network base. With --network, nothing
but the networks named is paid on. USDC is the only asset, unless you name another one with
--asset. Redirects are followed on the same host; a payment goes to no other host than the
one you asked, and to no other URL than the one that made the offer.

WHEN THE OUTCOME IS UNKNOWN. A server that can't say yet whether it has your money answers 503;
a connection may break. The same payment is then sent again, which can't cost twice, and never
a new one. Until the outcome is known the signed payment, with its request, is kept in a file that
only you can read (--save-payment FILE, by default in Caddy's data directory). Where it stays
unknown, the exit code is 5: send the same payment later, with

  caddy x402 pay --resume FILE

Paying anew instead may cost you twice. Who reads the file can use the payment in your place.

OUTPUT. On a terminal: the body, as it is. Otherwise, and with --json, one JSON object:

  outcome         "paid", "free" (nothing was asked for), "served" (a payment was sent, and the
                  answer has no receipt), "dry_run", "declined" (here), "refused" (there),
                  "unknown", or "failed"
  paid            true if the server's receipt says that the payment was taken
  url, method     of the last request; status is the answer's, 0 if there was none
  x402Version     of the offer: 1 or 2
  network         CAIP-2 identifier; asset, payTo and payer are addresses
  amount          in atomic units; amountDecimal in whole ones, of symbol
  plan            the plan that was bought
  nonce           of the authorization; validBefore is when it ends (unix seconds)
  payment         the server's id of the payment; statusUrl tells what became of it
  paymentStatus   what the server says of a payment whose answer is an error
  transaction     hash of the transfer
  attempts        how many requests were sent
  savedPayment    file with the payment, if its outcome is unknown
  accessTokenFile file with the access token of a plan
  error           code, detail, reason (the server's), retryAfterSeconds
  offer           with --dry-run, or if nothing in it was acceptable: what the server offers
  headers         with --include: the answer's
  body            the answer's, as text; bodyBase64 where it is no text or over 1 MiB;
                  bodyError if it was cut off. None of them with --output FILE.

-o - writes the body alone, wherever the standard output goes. Neither keys nor signatures
nor access tokens are ever printed; a plan's token is written to a file (--token-file).

EXIT CODES

  0  answered, and paid for if that was needed
  2  a flag, the key or the request is wrong; nothing was sent
  3  declined here: over --max-amount, another network or asset, or no offer that can be used;
     nothing was signed, or what was signed was not sent
  4  the server refused the payment, or answered it with 4xx and no receipt
  5  outcome unknown: do not pay again, use --resume
  6  paid, but the answer is an error (4xx, 5xx), was cut off, or went to an earlier attempt
  7  no answer from the server; no payment left this machine
  8  the server answered with an error (4xx, 5xx) and asked for no payment
`

const payExamples = `  $ caddy x402 pay https://api.example.com/weather
  $ caddy x402 pay --dry-run https://api.example.com/weather
  $ caddy x402 pay --network base --max-amount 0.05 -o report.pdf https://api.example.com/report
  $ caddy x402 pay -H "Content-Type: application/json" -d '{"q":"tea"}' https://api.example.com/ask
  $ pass show wallet | caddy x402 pay --key-file - https://api.example.com/weather | jq -r .body
  $ caddy x402 pay --plan day --max-amount 1 --token-file day.jwt https://api.example.com/reports/1`
