// A shop of @x402/express, unmodified, that sells GET /tea for a cent to {payTo} and has its payments settled by {facilitator}, with
// the API key {key} if there is one: these are in the first line of the standard input. Prints its address, and ends with its input.
import { createInterface } from "node:readline";
import express from "express";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { facilitator, key, payTo } = JSON.parse((await lines.next()).value);
const network = "eip155:84532";
const headers = { Authorization: `Bearer ${key}` };
const client = new HTTPFacilitatorClient({
  url: facilitator,
  ...(key && { createAuthHeaders: async () => ({ verify: headers, settle: headers, supported: headers }) }),
});
const app = express();
app.use(
  paymentMiddleware(
    { "GET /tea": { accepts: [{ scheme: "exact", price: "$0.01", network, payTo }], description: "A cup of tea" } },
    new x402ResourceServer(client).register(network, new ExactEvmScheme()),
  ),
);
// Who asks with ?at=<name> waits for all who ask with the same: a meeting of {many}.
const meetings = new Map();
app.get("/tea", async (request, response) => {
  const { at, many } = request.query;
  if (at) {
    const waiting = meetings.get(at) ?? [];
    meetings.set(at, waiting);
    await new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length >= Number(many)) {
        waiting.forEach((go) => go());
      }
      setTimeout(resolve, 10_000);
    });
  }
  response.send("a cup of tea");
});
const server = app.listen(0, "127.0.0.1", () => process.stdout.write(`http://127.0.0.1:${server.address().port}\n`));
await lines.next();
process.exit();
