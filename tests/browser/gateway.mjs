/** The concert behind nginx, with the documented files, where only addresses are others. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

import { freePort } from './program.mjs';

const DOCUMENTED = path.resolve(import.meta.dirname, '../../tools/gateways');
const LISTENS_WITHIN_MS = 10_000;
/** One process, so that it is gone when it is killed; and each address that reaches it is noted. */
const WHOLE = `daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {}
http {
  log_format addresses $request_uri;
  access_log addresses.log addresses;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  include site.conf;
}
`;

/** Starts the site and a gateway in front of it: its origin, and the addresses that reached it. */
export async function startConcert(anteroom) {
  const site = spawn(
    process.execPath,
    [`${DOCUMENTED}/concert/server.mjs`, '--port', '0', '--anteroom', anteroom],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [line] = await once(createInterface({ input: site.stdout }), 'line');
  site.stdout.resume();

  const dir = await mkdtemp(path.join(tmpdir(), 'anteroom-gateway-'));
  const port = await freePort();
  const text = await readFile(`${DOCUMENTED}/nginx.conf`, 'utf8');
  const here = text
    .replace('listen 8000;', `listen 127.0.0.1:${port};`)
    .replace('server 127.0.0.1:8080;', `server ${new URL(anteroom).host};`)
    .replace('server 127.0.0.1:9000;', `server ${new URL(JSON.parse(line).ready).host};`);
  await writeFile(path.join(dir, 'site.conf'), here);
  await writeFile(path.join(dir, 'nginx.conf'), WHOLE);
  const nginx = spawn('nginx', ['-p', dir, '-c', 'nginx.conf', '-e', 'error.log'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  nginx.on('error', (error) => console.error(error.message));
  await listening(port);
  return {
    origin: `http://127.0.0.1:${port}`,
    addresses: async () =>
      (await readFile(path.join(dir, 'addresses.log'), 'utf8')).trim().split('\n'),
    stop: async () => {
      for (const child of [nginx, site]) child.kill('SIGTERM');
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function listening(port) {
  const until = Date.now() + LISTENS_WITHIN_MS;
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const isThere = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isThere) return;
    if (Date.now() > until) throw new Error('nginx does not listen');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
