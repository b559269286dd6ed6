// A receiver of webhooks that believes what the npm package standardwebhooks verifies, and nothing else. The first line of the standard input
// is {secrets: [...]}, any of which is good. Prints its address, and ends with its input.
//
//   POST /hook       a webhook: 204, or 401 if it is not to be believed; or what it was told to do
//   PUT  /behave     {status, headers, delay, hangup, now}: what is answered from now on; now is the clock, in milliseconds
//   GET  /received   what has come since it was asked last
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { buffer, json } from "node:stream/consumers";
import { setTimeout as wait } from "node:timers/promises";
import { Webhook } from "standardwebhooks";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { secrets } = JSON.parse((await lines.next()).value);
const webhooks = secrets.map((secret) => new Webhook(secret));
const realNow = Date.now;
let behaviour = {};
let received = [];

// verdict gives what is wrong with a webhook, or nothing; each signature that is good for none of the secrets is wrong.
function verdict(webhook, body, headers) {
  try {
    webhook.verify(body, headers);
    return "";
  } catch (error) {
    return String(error.message);
  }
}

function judge(body, headers) {
  const errors = webhooks.map((webhook) => verdict(webhook, body, headers));
  const tampered = Buffer.concat([body, Buffer.from(" ")]);
  return {
    good: errors.filter((error) => error === "").length,
    error: errors.find((error) => error !== "") ?? "",
    tamperedGood: webhooks.filter((webhook) => verdict(webhook, tampered, headers) === "").length,
  };
}

async function hook(request, response) {
  const body = await buffer(request);
  const result = judge(body, request.headers);
  const { status = 204, headers = {}, delay = 0, hangup = false } = behaviour;
  const taken = result.good > 0 && status < 300 && !hangup && delay === 0;
  received.push({ ...result, taken, headers: request.headers, body: body.toString() });
  if (hangup) {
    request.socket.destroy();
    return;
  }
  if (delay > 0) {
    await wait(delay, undefined, { ref: false });
  }
  response.writeHead(result.good > 0 ? status : 401, headers).end();
}

const server = createServer(async (request, response) => {
  switch (`${request.method} ${request.url}`) {
    case "POST /hook":
      return hook(request, response);
    case "PUT /behave":
      behaviour = await json(request);
      Date.now = behaviour.now ? () => behaviour.now : realNow;
      return response.writeHead(204).end();
    case "GET /received":
      response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(received));
      received = [];
      return;
    default:
      received.push({ error: `${request.method} ${request.url}`, good: 0, taken: false, headers: {}, body: "" });
      response.writeHead(404).end();
  }
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
for await (const _ of lines) {
  // a second line would be ignored
}
server.close();
server.closeAllConnections();
