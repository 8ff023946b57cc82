/** The pages with a server that says what a test wants it to say, for states that are hard to bring about. */

import { readFile } from 'node:fs/promises';
import path from 'node:path';

const WEB = path.resolve(import.meta.dirname, '../../web');
const TYPES = {
  '.html': 'text/html',
  '.css': 'text/css',
  '.js': 'text/javascript',
  '.svg': 'image/svg+xml',
};
const PAGES = { waiting: 'waiting.html', entered: 'entered.html' };

export const ORIGIN = 'http://anteroom.test';
export const JOINED = {
  type: 'JOINED',
  connectionId: 'connection-1',
  payload: { queue: 'concert', reconnectWithin: 300 },
};

export function update(payload) {
  const common = { position: 1244, count: 1243, waiting: 51234, seconds: 754, status: 'open' };
  return { type: 'QUEUE_UPDATE', payload: { ...common, ...payload } };
}

export const admitted = {
  type: 'ADMITTED',
  payload: {
    token: 'head.body.signature',
    expiresAt: '2030-01-01T00:02:00Z',
    expiresIn: 120,
    target: `${ORIGIN}/entered/concert`,
  },
};
export const ended = (reason) => ({ type: 'ENDED', payload: { reason } });
export const failed = (code, retryAfter) => ({
  type: 'ERROR',
  payload: { code, message: '', retryAfter },
});

/**
 * Serves the files under the policy that the node sends with them, and answers `/api` and `/anteroom`.
 *
 * @param {import('playwright-core').BrowserContext} context
 * @param {Record<string, (request: import('playwright-core').Request) => object>} [answers] by path
 */
export async function serveFiles(context, answers = {}) {
  await context.route(`${ORIGIN}/**`, async (route) => {
    const { pathname } = new URL(route.request().url());
    const [, folder, rest] = pathname.split('/');
    const ofSite = folder === 'anteroom' && route.request().method() === 'GET';
    const answer = ofSite ? null : answers[pathname];
    if (answer) return route.fulfill(answer(route.request()));
    const ofAnteroom = rest === undefined ? folder : PAGES[folder];
    const name = ofSite ? (rest === 'enter' ? 'enter.html' : rest) : ofAnteroom;
    if (!name) return route.fulfill(problem(404, 'unknown_queue'));
    await route.fulfill({
      body: await readFile(path.join(WEB, name)),
      contentType: TYPES[path.extname(name)],
      headers: { 'Content-Security-Policy': "default-src 'self'" },
    });
  });
}

export const CONCERT = {
  [`/api/queues/concert`]: () =>
    json({ queue: 'concert', title: 'Lantern Festival 2027', status: 'open' }),
};

export function json(body, status = 200) {
  return { status, contentType: 'application/json', body: JSON.stringify(body) };
}

export function problem(status, code) {
  return { status, contentType: 'application/problem+json', body: JSON.stringify({ code }) };
}

/**
 * Plays the node. Each socket is noted with what the page said on it.
 *
 * @param {import('playwright-core').Page} page
 * @param {(socket: { send(message: object): void, close(how?: object): void }, said: any, nth: number) => void} reply
 */
export async function playNode(page, reply) {
  const sockets = [];
  await page.routeWebSocket('**/ws/*', (route) => {
    const socket = {
      url: route.url(),
      said: [],
      isClosed: false,
      send: (message) =>
        route.send(typeof message === 'string' ? message : JSON.stringify(message)),
      close: (how) => route.close(how),
    };
    const nth = sockets.push(socket);
    route.onMessage((text) => {
      const said = JSON.parse(text);
      socket.said.push(said);
      reply(socket, said, nth);
    });
    route.onClose(() => {
      socket.isClosed = true;
    });
  });
  return sockets;
}
