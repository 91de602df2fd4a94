// Compile the contracts with the pinned solc and write one artifact a contract: ABI, bytecode, compiler version.
// Same sources, same compiler, same bytes: the metadata hash is left out. `node compile.js OUTPUT_DIRECTORY`
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const here = __dirname;
const output = process.argv[2] || path.join(here, "artifacts");
const names = ["Lido", "WithdrawalQueue", "LidoLocator"];
const sources = Object.fromEntries(
  [...names, "Permit"].map((name) => [`${name}.sol`, { content: fs.readFileSync(path.join(here, "contracts", `${name}.sol`), "utf8") }]),
);
const input = {
  language: "Solidity",
  sources,
  settings: {
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 200 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const result = JSON.parse(solc.compile(JSON.stringify(input)));
const faults = (result.errors || []).filter((error) => error.severity === "error");
if (faults.length > 0) {
  console.error(faults.map((error) => error.formattedMessage).join("\n"));
  process.exit(1);
}
fs.mkdirSync(output, { recursive: true });
for (const name of names) {
  const contract = result.contracts[`${name}.sol`][name];
  const artifact = { contract: name, compiler: solc.version(), abi: contract.abi, bytecode: `0x${contract.evm.bytecode.object}` };
  fs.writeFileSync(path.join(output, `${name}.json`), `${JSON.stringify(artifact, null, 1)}\n`);
}
