// The reference server of x402 as its example has it: Express, its middleware, one paid route, a facilitator over HTTP.
//
// PORT            where it listens, on 127.0.0.1
// PAY_TO          who is paid
// FACILITATOR_URL where its facilitator is
import process from "node:process";
import express from "express";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

const { PORT, PAY_TO, FACILITATOR_URL } = process.env;
const network = "eip155:84532";

const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: FACILITATOR_URL })).register(network, new ExactEvmScheme());

const app = express();
app.disable("x-powered-by");
app.disable("etag");
app.use(
  paymentMiddleware(
    {
      "GET /paid": {
        accepts: [{ scheme: "exact", price: "$0.01", network, payTo: PAY_TO }],
        description: "The weather of a city",
        mimeType: "application/json",
      },
    },
    server,
  ),
);
app.get("/paid", (_, res) => {
  res.json({ city: "Berlin", weather: "sunny", temperature: 21 });
});
app.listen(Number(PORT), "127.0.0.1", 4096); // thousands may connect at once

// It ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
