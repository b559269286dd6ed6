// Buys one answer with the unmodified client of protocol version 2 and its extension payment-identifier. Reads {url, method,
// body, key, id} from the standard input, and prints what the client made of it.
import { text } from "node:stream/consumers";
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { appendPaymentIdentifierToExtensions, PAYMENT_IDENTIFIER } from "@x402/extensions/payment-identifier";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";

const { url, method, body, key, id } = JSON.parse(await text(process.stdin));
const client = new x402Client()
  .register("eip155:84532", new ExactEvmScheme(privateKeyToAccount(key)))
  .registerExtension({
    key: PAYMENT_IDENTIFIER,
    enrichPaymentPayload: async (payload, required) => ({
      ...payload,
      extensions: appendPaymentIdentifierToExtensions(structuredClone(payload.extensions ?? required.extensions ?? {}), id),
    }),
  });
const pay = wrapFetchWithPayment(fetch, client);

let result;
try {
  const answer = await pay(url, { method, body });
  const header = answer.headers.get("PAYMENT-RESPONSE");
  result = {
    status: answer.status,
    body: await answer.text(),
    retryAfter: answer.headers.get("Retry-After") ?? "",
    settlement: header && decodePaymentResponseHeader(header),
    replayed: answer.headers.get("Idempotency-Replayed") ?? "",
  };
} catch (error) {
  result = { error: `${error}: ${error.cause ?? ""}` };
}
process.stdout.write(JSON.stringify(result));
