// Runs a program for the WebAssembly System Interface: node wasi.mjs FILE
import fs from 'fs';
import { WASI } from 'node:wasi';

const wasi = new WASI({ version: 'preview1', args: ['platform'], returnOnExit: true });
const module = await WebAssembly.compile(fs.readFileSync(process.argv[2]));
process.exitCode = wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));
