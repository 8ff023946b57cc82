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
  let response;
  try {
    response = await browser.fetch('/anteroom/enter', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': requestKey(browser) },
      body: JSON.stringify({ token }),
    });
  } catch {
    return { ok: false, code: 'unreachable', status: 0, retryAfter: null };
  }
  const body = await response.json().catch(() => ({}));
  // Whatever the answer, a token that was judged is of no more use.
  if (response.ok || response.status === 401 || response.status === 409) forgetToken(browser);
  if (response.ok) return { ok: true, ...body };
  const retryAfter = secondsIn(response.headers.get('Retry-After') ?? '');
  return { ok: false, code: String(body.code ?? 'unknown'), status: response.status, retryAfter };
}
