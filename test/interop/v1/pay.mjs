// Buys one answer with the unmodified client of protocol version 1. Reads {url, method, body, key} from the standard
// input, and prints what the client made of it.
import { text } from "node:stream/consumers";
import { createSigner, decodeXPaymentResponse, wrapFetchWithPayment } from "x402-fetch";

const { url, method, body, key } = JSON.parse(await text(process.stdin));
const pay = wrapFetchWithPayment(fetch, await createSigner("base-sepolia", key));

let result;
try {
  const answer = await pay(url, { method, body });
  const header = answer.headers.get("X-PAYMENT-RESPONSE");
  result = {
    status: answer.status,
    body: await answer.text(),
    retryAfter: answer.headers.get("Retry-After") ?? "",
    settlement: header && decodeXPaymentResponse(header),
  };
} catch (error) {
  result = { error: `${error}: ${error.cause ?? ""}` };
}
process.stdout.write(JSON.stringify(result));
