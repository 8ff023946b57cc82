/** The real program: started as anyone would start it, told what to do by its operator listener. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

const BINARY = path.resolve(
  import.meta.dirname,
  process.env.ANTEROOM_BIN ?? '../../target/debug/anteroom',
);
const READY_WITHIN_MS = 60_000;
const GONE_WITHIN_MS = 15_000;

/**
 * Starts `anteroom up` in a folder of its own and waits until it says that it is ready. Where a gateway
 * stands in front of it, it must know its own address (`isPublic`).
 */
export async function startProgram({ isPublic = false } = {}) {
  if (!existsSync(BINARY)) {
    throw new Error(`no program at ${BINARY}: build it, or name it in ANTEROOM_BIN`);
  }
  const dir = await mkdtemp(path.join(tmpdir(), 'anteroom-browser-'));
  const address = `127.0.0.1:${isPublic ? await freePort() : 0}`;
  const listen = ['--listen', address, '--operator-listen', '127.0.0.1:0'];
  if (isPublic) listen.push('--public-url', `http://${address}`);
  const child = spawn(BINARY, ['up', '--json', '--dir', dir, ...listen], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const errors = [];
  child.stderr.on('data', (chunk) => errors.push(chunk));
  const gone = new Promise((resolve) => child.once('exit', resolve));
  const stop = async () => {
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), GONE_WITHIN_MS);
    await gone;
    clearTimeout(timer);
    await rm(dir, { recursive: true, force: true });
  };
  try {
    const ready = await firstLine(child, gone);
    return { ...ready, operate: operator(ready), stop };
  } catch (cause) {
    await stop();
    const said = Buffer.concat(errors).toString().slice(-4000);
    throw new Error(`the program did not become ready: ${cause.message}\n${said}`, { cause });
  }
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

async function firstLine(child, gone) {
  const lines = createInterface({ input: child.stdout });
  const line = new Promise((resolve) => lines.once('line', resolve));
  const ended = gone.then((code) => {
    throw new Error(`it ended with ${code}`);
  });
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`not within ${READY_WITHIN_MS} ms`)),
      READY_WITHIN_MS,
    );
  });
  const ready = JSON.parse(await Promise.race([line, ended, late]));
  clearTimeout(timer);
  // It keeps its own counsel after that, but a full pipe would stop it.
  child.stdout.resume();
  return ready;
}

/** Calls of the operator listener; an answer other than 2xx is a failure. */
function operator({ operator: base, operatorToken }) {
  return async (method, callPath, body) => {
    const response = await fetch(`${base}${callPath}`, {
      method,
      headers: { Authorization: `Bearer ${operatorToken}`, 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!response.ok) {
      throw new Error(`${method} ${callPath}: ${response.status} ${await response.text()}`);
    }
  };
}
