/**
 * A concert that more people want to see than there are seats: the site behind the gateway.
 *
 *   node server.mjs [--port 9000] [--anteroom http://127.0.0.1:8080] [--queue concert]
 *                   [--issuer anteroom] [--waiting http://127.0.0.1:8080/waiting/concert]
 *                   [--open-when-away]
 *
 * or PORT, ANTEROOM, QUEUE, ISSUER, WAITING in the environment. The gateway has asked Anteroom about
 * each request that comes here; the site verifies the pass once more, offline, so that a gap in the
 * gateway is none in the site. It listens on loopback: what the gateway says in X-Anteroom-Away must
 * come from nobody else.
 */

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { Passes } from '../verify.mjs';
import { answer, problem } from './seats.mjs';

const { env } = process;
const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: env.PORT ?? '9000' },
    anteroom: { type: 'string', default: env.ANTEROOM ?? 'http://127.0.0.1:8080' },
    queue: { type: 'string', default: env.QUEUE ?? 'concert' },
    issuer: { type: 'string', default: env.ISSUER ?? 'anteroom' },
    waiting: { type: 'string', default: env.WAITING },
    'open-when-away': { type: 'boolean', default: false },
  },
});
const waiting = options.waiting ?? `${options.anteroom}/waiting/${options.queue}`;
const passes = new Passes(
  `${options.anteroom}/.well-known/jwks.json`,
  options.queue,
  options.issuer,
);

const file = (name, type) => ({ type, text: readFileSync(path.join(import.meta.dirname, name)) });
const FILES = new Map([
  ['/', file('index.html', 'text/html; charset=utf-8')],
  ['/concert/', file('index.html', 'text/html; charset=utf-8')],
  ['/concert/page.js', file('page.js', 'text/javascript')],
]);

const server = createServer(async (request, response) => {
  const said = await respond(request).catch((error) => {
    console.error(error);
    return problem(500, 'internal', 'Something went wrong here.');
  });
  send(response, said);
  note(request, said);
});
server.listen(Number(options.port), '127.0.0.1', () => {
  console.log(JSON.stringify({ ready: `http://127.0.0.1:${server.address().port}` }));
});

async function respond(request) {
  const visitor = await visitorOf(request);
  if (visitor === undefined) return refusal(request);
  const [target] = request.url.split('?');
  if (target.startsWith('/api/')) return { ...answer(request.method, target, visitor), visitor };
  const found = FILES.get(target);
  if (!found) return problem(404, 'not_found', 'There is nothing here.');
  return { status: 200, file: found, visitor };
}

/** Who comes: a visitor's name; null for one who is let in without a pass; undefined for nobody. */
async function visitorOf(request) {
  for (const pass of passesIn(request.headers)) {
    const visitor = await passes.visitorOf(pass).catch(() => undefined);
    if (visitor !== undefined) return visitor;
  }
  const isAway = request.headers['x-anteroom-away'] === '1';
  return isAway && options['open-when-away'] ? null : undefined;
}

/** Wherever a pass may be: the gateway hands on a new one, the cookie has it from then on. */
function passesIn(headers) {
  const cookies = (headers.cookie ?? '').split(';').map((pair) => pair.trim().split('='));
  const named = (name) => cookies.filter(([key]) => key === name).map(([, value]) => value ?? '');
  return [
    headers['x-anteroom-pass'],
    headers['x-waiting-token'],
    /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1],
    ...named('__Host-anteroom_pass'),
    ...named('anteroom_pass'),
  ].filter(Boolean);
}

/** The API says it to the page's script, which knows the way; a page says it to people. */
function refusal(request) {
  if (request.url.startsWith('/api/')) {
    return problem(403, 'no_pass', 'A pass is needed.', { waiting });
  }
  const text = `<!doctype html><title>Not yet</title><p>Please <a href="${waiting}">wait in line</a>.`;
  return { status: 403, file: { type: 'text/html; charset=utf-8', text } };
}

function send(response, { status, body, file: found }) {
  if (status === 403) response.setHeader('Location', waiting);
  response.setHeader('Cache-Control', 'no-store');
  const json = status < 400 ? 'application/json' : 'application/problem+json';
  const text = Buffer.from(found?.text ?? JSON.stringify(body));
  response.writeHead(status, {
    'Content-Type': found?.type ?? json,
    'Content-Length': text.length,
  });
  response.end(text);
}

/** A line for each request that reached the site, with what the gateway said of it; no secrets. */
function note({ method, url, headers }, { status, visitor }) {
  const said = Object.entries(headers).filter(([name]) => /^x[-_](anteroom|forwarded)/.test(name));
  const shown = said.map(([name, value]) => [name, /pass$/.test(name) ? '…' : value]);
  console.log(JSON.stringify({ status, method, url, visitor, said: Object.fromEntries(shown) }));
}

for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
