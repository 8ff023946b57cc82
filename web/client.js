// @ts-check
/**
 * Anteroom in the browser: a place in line, and the way in.
 *
 *   import { WaitingRoom } from '/client.js';          // on the waiting page
 *   const room = new WaitingRoom('concert', { onChange: (state) => draw(state) });
 *   room.start();
 *
 *   import { takeToken, enter } from '/client.js';     // on the protected site
 *   const token = takeToken();
 *   if (token) { const entry = await enter(token); }
 *
 * Nothing is global but two entries of storage: the place in localStorage (`anteroom.<queue>`), which
 * all tabs share, and the admission token in sessionStorage (`waitingToken`), which is this tab's.
 * `browser` stands for `window` everywhere, so that a test can hand in its own.
 */

export { enter, renew, takeToken } from './entry.js';
export { WaitingRoom } from './room.js';

/**
 * @typedef {import('./room.js').State} State
 * @typedef {import('./room.js').Options} Options
 * @typedef {import('./message.js').Update} Update
 * @typedef {import('./entry.js').Entry} Entry
 * @typedef {import('./entry.js').NoEntry} NoEntry
 */
