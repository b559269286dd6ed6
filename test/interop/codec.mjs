// Encodes, decodes and judges with @x402/core: one JSON object {job, value} a line in, one {value} or {error} a line out.
import { createInterface } from "node:readline";
import * as http from "@x402/core/http";
import { validatePaymentPayload, validatePaymentRequired } from "@x402/core/schemas";

const jobs = {
  encodeRequired: http.encodePaymentRequiredHeader,
  decodeRequired: http.decodePaymentRequiredHeader,
  validateRequired: validatePaymentRequired,
  encodePayload: http.encodePaymentSignatureHeader,
  decodePayload: http.decodePaymentSignatureHeader,
  validatePayload: validatePaymentPayload,
  encodeResponse: http.encodePaymentResponseHeader,
  decodeResponse: http.decodePaymentResponseHeader,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { job, value } = JSON.parse(line);
  let answer;
  try {
    answer = { value: jobs[job](value) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
