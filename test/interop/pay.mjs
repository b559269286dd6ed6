// Buys one answer with the unmodified client of protocol version 2. Reads {url, method, body, key} from the standard
// input, and prints what the client made of it.
import { text } from "node:stream/consumers";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";

const { url, method, body, key } = JSON.parse(await text(process.stdin));
const pay = wrapFetchWithPaymentFromConfig(fetch, {
  schemes: [{ network: "eip155:84532", client: new ExactEvmScheme(privateKeyToAccount(key)) }],
});

let result;
try {
  const answer = await pay(url, { method, body });
  const header = answer.headers.get("PAYMENT-RESPONSE");
  result = {
    status: answer.status,
    body: await answer.text(),
    retryAfter: answer.headers.get("Retry-After") ?? "",
    settlement: header && decodePaymentResponseHeader(header),
  };
} catch (error) {
  result = { error: `${error}: ${error.cause ?? ""}` };
}
process.stdout.write(JSON.stringify(result));
