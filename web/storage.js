// @ts-check
/**
 * What a browser keeps: the place, shared by its tabs, and a tab's own admission token. Storage may be
 * forbidden, which shows when it is touched, or full; the place then lives as long as the page does.
 */

import { OPENED_MAX, openedOrZero, textOrUndefined, wholeOrNull } from './message.js';

/**
 * @typedef {object} Place What this browser knows of its place. Both ids are secrets.
 * @property {string} [joinKey]
 * @property {string} [connectionId]
 * @property {number} [opened] the number of its newest socket, counted by all tabs together
 * @property {number} [startCount]
 * @property {string} [target]
 */

/** The place as all tabs of this browser share it. */
export class PlaceStore {
  /** @param {string} queue @param {any} browser */
  constructor(queue, browser) {
    this.entry = `anteroom.${queue}`;
    this.browser = browser;
  }

  /** @returns {Place} */
  read() {
    try {
      const { joinKey, connectionId, opened, startCount, target } = JSON.parse(
        readSafely(this.browser, 'localStorage', this.entry) ?? '{}',
      );
      return {
        joinKey: textOrUndefined(joinKey),
        connectionId: textOrUndefined(connectionId),
        opened: openedOrZero(opened),
        startCount: wholeOrNull(startCount) ?? undefined,
        target: textOrUndefined(target),
      };
    } catch {
      // Edited by hand: as good as empty.
      return {};
    }
  }

  /** @param {Place} place */
  write(place) {
    // Another tab may have counted on since this one did.
    const opened = openedOf(place, this.read());
    writeSafely(this.browser, 'localStorage', this.entry, JSON.stringify({ ...place, opened }));
  }

  /**
   * The place with the number of one more socket, above those of all its tabs. Two tabs that count at
   * the same moment may come to the same number; the log's order then decides.
   * @param {Place} place
   * @returns {Place}
   */
  countSocket(place) {
    return this.raise(place, openedOf(place, this.read()) + 1);
  }

  /**
   * The place when its sockets have numbers up to this one, so that the next is above it.
   * @param {Place} place
   * @param {number} opened
   * @returns {Place}
   */
  raise(place, opened) {
    const stored = this.read();
    const highest = Math.max(opened, openedOf(place, stored));
    const raised = { ...place, opened: Math.min(highest, OPENED_MAX) };
    // What was stored since may be a new place, and this one over.
    if (isSame(place, stored)) this.write(raised);
    return raised;
  }

  /**
   * Forgets a place that is over, but not a new one that another tab has begun since.
   * @param {Place} place
   */
  forget(place) {
    const stored = this.read();
    const isAnother =
      stored.connectionId !== undefined && stored.connectionId !== place.connectionId;
    if (!isAnother) writeSafely(this.browser, 'localStorage', this.entry, null);
  }

  /**
   * Keeps the joinKey: joining with it again is the same place, if there still is one.
   * @param {Place} place
   * @returns {Place}
   */
  forgetConnection({ joinKey, opened }) {
    this.write({ joinKey, opened });
    return { joinKey, opened };
  }
}

/** @param {Place} place @param {Place} stored */
function isSame(place, stored) {
  return place.joinKey === stored.joinKey;
}

/** The highest number that this tab or another has counted to. @param {Place} place @param {Place} stored */
function openedOf(place, stored) {
  const own = place.opened ?? 0;
  return isSame(place, stored) ? Math.max(own, stored.opened ?? 0) : own;
}

const TOKEN_ENTRY = 'waitingToken';
const REQUEST_KEY_ENTRY = 'waitingTokenKey';

/** @returns {string | null} */
export function storedToken(/** @type {any} */ browser) {
  return readSafely(browser, 'sessionStorage', TOKEN_ENTRY);
}

export function storeToken(/** @type {string} */ token, /** @type {any} */ browser) {
  // Another token is another exchange.
  if (storedToken(browser) !== token) forgetToken(browser);
  writeSafely(browser, 'sessionStorage', TOKEN_ENTRY, token);
}

/** The key of this token's exchange, the same over retries and refreshes. */
export function requestKey(/** @type {any} */ browser) {
  const known = readSafely(browser, 'sessionStorage', REQUEST_KEY_ENTRY);
  if (known) return known;
  const key = uuidV4(browser.crypto);
  writeSafely(browser, 'sessionStorage', REQUEST_KEY_ENTRY, key);
  return key;
}

export function forgetToken(/** @type {any} */ browser) {
  writeSafely(browser, 'sessionStorage', TOKEN_ENTRY, null);
  writeSafely(browser, 'sessionStorage', REQUEST_KEY_ENTRY, null);
}

/** `crypto.randomUUID` exists on secure origins only; this works on plain HTTP too. */
export function uuidV4(/** @type {Crypto} */ crypto) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-');
}

/** @typedef {'localStorage' | 'sessionStorage'} StorageName */

/** @param {any} browser @param {StorageName} name @param {string} entry @returns {string | null} */
function readSafely(browser, name, entry) {
  try {
    return browser[name].getItem(entry);
  } catch {
    return null;
  }
}

/** @param {any} browser @param {StorageName} name @param {string} entry @param {string | null} value */
function writeSafely(browser, name, entry, value) {
  try {
    if (value === null) browser[name].removeItem(entry);
    else browser[name].setItem(entry, value);
  } catch {
    // Nothing to do about it.
  }
}
