// A facilitator as the example of the reference has it, and with what makes it fast:
//
//  * viem's nonce manager, which counts nonces by itself. Without it, concurrent settlements clash, and most of them fail.
//  * blocks are looked for every POLL_MS (the default would be every 4 s).
//  * calls of the chain travel together: that halves what a payment costs here.
//  * the gas limit is fixed, so that it is not estimated for each transaction.
//  * nothing is logged.
//
// PORT        where it listens, on 127.0.0.1
// RPC_URL     the chain
// PRIVATE_KEY the wallet that pays for gas
import process from "node:process";
import express from "express";
import { createWalletClient, http, publicActions } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";

const { PORT, RPC_URL, PRIVATE_KEY, POLL_MS = "100" } = process.env;
const gas = 120_000n;

const account = privateKeyToAccount(PRIVATE_KEY, { nonceManager });
const chain = createWalletClient({
  account,
  chain: baseSepolia,
  transport: http(RPC_URL, { batch: true }),
  pollingInterval: Number(POLL_MS),
}).extend(publicActions);

const signer = toFacilitatorEvmSigner({
  address: account.address,
  getCode: args => chain.getCode(args),
  readContract: args => chain.readContract({ ...args, args: args.args || [] }),
  verifyTypedData: args => chain.verifyTypedData(args),
  writeContract: args => chain.writeContract({ gas, ...args, args: args.args || [] }),
  sendTransaction: args => chain.sendTransaction(args),
  waitForTransactionReceipt: args => chain.waitForTransactionReceipt(args),
});

const facilitator = new x402Facilitator();
facilitator.register("eip155:84532", new ExactEvmScheme(signer));

const app = express();
app.disable("x-powered-by");
app.disable("etag");
app.use(express.json());

for (const job of ["verify", "settle"]) {
  app.post(`/${job}`, async (req, res) => {
    const { paymentPayload, paymentRequirements } = req.body;
    if (!paymentPayload || !paymentRequirements) {
      return res.status(400).json({ error: "Missing paymentPayload or paymentRequirements" });
    }
    try {
      return res.json(await facilitator[job](paymentPayload, paymentRequirements));
    } catch (error) {
      return res.status(500).json({ error: error instanceof Error ? error.message : "Unknown error" });
    }
  });
}
app.get("/supported", (_, res) => {
  res.json(facilitator.getSupported());
});
app.listen(Number(PORT), "127.0.0.1", 4096); // thousands may connect at once

// It ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();
