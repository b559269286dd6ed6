// A facilitator of @x402/core and @x402/evm, unmodified, that settles through the endpoint and with the key in {rpc, key}, the
// first line of the standard input. Prints its address, and ends with its input. A second line would be ignored.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { createWalletClient, http, nonceManager, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { rpc, key } = JSON.parse((await lines.next()).value);
const account = privateKeyToAccount(key, { nonceManager });
const client = createWalletClient({ account, chain: baseSepolia, transport: http(rpc), pollingInterval: 50 }).extend(publicActions);
const facilitator = new x402Facilitator();
registerExactEvmScheme(facilitator, {
  signer: toFacilitatorEvmSigner({ ...client, address: account.address }),
  networks: "eip155:84532",
});

async function answer(request) {
  if (request.url === "/supported") {
    return facilitator.getSupported();
  }
  const { paymentPayload, paymentRequirements } = JSON.parse(await text(request));
  return facilitator[request.url.slice(1)](paymentPayload, paymentRequirements);
}

const server = createServer(async (request, response) => {
  let status = 200;
  let body;
  try {
    body = await answer(request);
  } catch (error) {
    status = 500;
    body = { error: String(error) };
  }
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body, (_, value) => (typeof value === "bigint" ? String(value) : value)));
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`http://127.0.0.1:${server.address().port}\n`));
await lines.next();
process.exit();
