// Compiles the contracts beside this file and writes contracts.json, which the Go package embeds:
//
//     npm ci && npm run compile
//
// With a path as its argument it writes there instead; the test that compares uses that.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import solc from 'solc';

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, 'contracts.json');
const wanted = ['USDC', 'Wallet', 'HostileWallet', 'Multicall3'];

const sources = Object.fromEntries(
  readdirSync(here)
    .filter((name) => name.endsWith('.sol'))
    .sort()
    .map((name) => [name, { content: readFileSync(join(here, name), 'utf8') }]),
);

const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: 'Solidity',
      sources,
      settings: {
        evmVersion: 'cancun',
        optimizer: { enabled: true, runs: 1000 },
        // Without the metadata's hash the code depends on the code alone, not on comments.
        metadata: { appendCBOR: false, bytecodeHash: 'none' },
        outputSelection: {
          '*': { '*': ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object', 'storageLayout'] },
        },
      },
    }),
  ),
);

const problems = output.errors ?? [];
for (const problem of problems) console.error(problem.formattedMessage);
if (problems.length > 0) process.exit(1);

const contracts = {};
for (const compiled of Object.values(output.contracts)) {
  for (const [name, { abi, evm, storageLayout }] of Object.entries(compiled)) {
    if (!wanted.includes(name)) continue;
    contracts[name] = {
      abi,
      bytecode: `0x${evm.bytecode.object}`,
      deployedBytecode: `0x${evm.deployedBytecode.object}`,
      storage: Object.fromEntries(
        storageLayout.storage.map(({ label, slot, offset }) => [label, { slot: Number(slot), offset }]),
      ),
    };
  }
}
const sorted = Object.fromEntries(wanted.map((name) => [name, contracts[name]]));
writeFileSync(target, `${JSON.stringify({ compiler: solc.version(), contracts: sorted }, null, 1)}\n`);
