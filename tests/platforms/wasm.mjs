// Runs a module of board_wasm.c: node wasm.mjs FILE
import fs from 'fs';

let memory;
const put = (at, length) => process.stdout.write(Buffer.from(memory.buffer, at, length));
const { instance } = await WebAssembly.instantiate(fs.readFileSync(process.argv[2]), { env: { put } });
memory = instance.exports.memory;
process.exitCode = instance.exports.run();
