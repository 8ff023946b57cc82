// @ts-check
/** The way into the protected site: a one-time token taken out of the address, and exchanged for a pass. */

import { secondsIn } from './message.js';
import { forgetToken, requestKey, storedToken, storeToken } from './storage.js';

/**
 * On the protected site: takes the admission token out of the address, so that it is neither bookmarked
 * nor shared, and keeps it for this tab.
 *
 * @returns {string | null} the token, also one that was taken before and not used yet
 */
export function takeToken(/** @type {any} */ browser = globalThis) {
  const { location, history } = browser;
  const token = new URLSearchParams(location.hash.slice(1)).get('anteroom_token');
  if (!token) return storedToken(browser);
  history.replaceState(history.state, '', location.pathname + location.search);
  storeToken(token, browser);
  return token;
}

/** Pause before the exchange is tried again, where the server does not say how long. */
const RETRY_SECONDS = 3;
const RETRY_SECONDS_MAX = 30;

/**
 * @typedef {{ ok: true, pass: string, expiresAt: string, visitor: string, queue: string }} Entry
 * @typedef {{ ok: false, code: string, status: number, retryAfter: number | null }} NoEntry
 *   `code` is the server's, or `no_token`, or `unreachable`
 */

/**
 * On the protected site: exchanges the token for a pass. The cookie that comes with it covers the
 * visitor's further requests. Trying again after `unreachable` or a 503 is safe: the request carries
 * a key by which the server gives the same answer.
 *
 * @param {string | null} [token]
 * @returns {Promise<Entry | NoEntry>}
 */
export async function enter(token = takeToken(), /** @type {any} */ browser = globalThis) {
  if (!token) return { ok: false, code: 'no_token', status: 0, retryAfter: null };
  const entry = await exchanged(() =>
    browser.fetch('/anteroom/enter', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': requestKey(browser) },
      body: JSON.stringify({ token }),
    }),
  );
  // Whatever the answer, a token that was judged is of no more use.
  if (entry.ok || entry.status === 401 || entry.status === 409) forgetToken(browser);
  return entry;
}

/**
 * The same, again and again while the server can't judge: nothing is lost meanwhile.
 *
 * @param {string} token
 * @param {() => void} onBusy told before each pause
 * @returns {Promise<Entry | NoEntry>}
 */
export async function enterUntilJudged(token, onBusy, /** @type {any} */ browser = globalThis) {
  for (;;) {
    const entry = await enter(token, browser);
    if (entry.ok || JUDGED.has(entry.code)) return entry;
    onBusy();
    await pause(entry.retryAfter, browser);
  }
}

const JUDGED = new Set(['token_already_used', 'token_expired', 'token_invalid', 'origin_refused']);

/** @param {number | null} seconds @returns {Promise<void>} */
export function pause(seconds, /** @type {any} */ browser = globalThis) {
  const least = Math.min(seconds ?? RETRY_SECONDS, RETRY_SECONDS_MAX);
  // Not all who were told the same come back in the same second.
  const delayMs = least * (1 + browser.Math.random() / 2) * 1000;
  return new Promise((resolve) => browser.setTimeout(resolve, delayMs));
}

/**
 * On the protected site: exchanges the pass in the cookie for a newer one of the same session. Where
 * passes are shorter than sessions, a page that stays open does so some time before its pass ends.
 *
 * @returns {Promise<Entry | NoEntry>}
 */
export async function renew(/** @type {any} */ browser = globalThis) {
  return exchanged(() => browser.fetch('/anteroom/renew', { method: 'POST' }));
}

/** @param {() => Promise<Response>} ask @returns {Promise<Entry | NoEntry>} */
async function exchanged(ask) {
  let response;
  try {
    response = await ask();
  } catch {
    return { ok: false, code: 'unreachable', status: 0, retryAfter: null };
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return { ok: true, ...body };
  const retryAfter = secondsIn(response.headers.get('Retry-After') ?? '');
  return { ok: false, code: String(body.code ?? 'unknown'), status: response.status, retryAfter };
}
