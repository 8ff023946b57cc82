// @ts-check
/** Reads what the server says, believing as little of its shape as possible. */

/**
 * @typedef {object} Update Where the visitor stands, as the server last said it.
 * @property {number} position
 * @property {number} count how many places are ahead
 * @property {number} waiting how many wait in all
 * @property {number | null} seconds the estimate; null when none can be given
 * @property {number | null} secondsLow eight of ten such waits are between these two
 * @property {number | null} secondsHigh
 * @property {'scheduled' | 'open' | 'paused' | 'closed'} status
 * @property {string | null} opensAt
 * @property {string | null} reason what the operator says about it
 * @property {Rise | null} rise why the wait is longer than was said before
 * @property {boolean} stale the numbers may be old
 */

/** @typedef {typeof RISES[number]} Rise A reason that is no text but stands for one. */
const RISES = /** @type {const} */ ([
  'rate_lowered',
  'line_slowed',
  'people_returned',
  'opening_moved',
]);

export const WAIT_MAX_SECONDS = 300;
/** The log keeps the number of a socket in 32 bits. */
export const OPENED_MAX = 4_294_967_295;
const MESSAGE_MAX_BYTES = 10 * 1024;

/** @returns {any} the message; null when it is too long or not one */
export function readMessage(/** @type {unknown} */ data) {
  if (typeof data !== 'string' || isTooLong(data)) return null;
  try {
    const message = JSON.parse(data);
    return typeof message === 'object' ? message : null;
  } catch {
    return null;
  }
}

function isTooLong(/** @type {string} */ text) {
  if (text.length > MESSAGE_MAX_BYTES) return true;
  // A UTF-16 unit takes at most three bytes, so most messages need no counting.
  return (
    text.length * 3 > MESSAGE_MAX_BYTES && new TextEncoder().encode(text).length > MESSAGE_MAX_BYTES
  );
}

/** @returns {Update | null} */
export function readUpdate(/** @type {any} */ payload) {
  const count = wholeOrNull(payload.count);
  if (count === null) return null;
  const reason = textOrUndefined(payload.reason) ?? null;
  const rise = RISES.find((code) => code === reason) ?? null;
  return {
    count,
    position: wholeOrNull(payload.position) ?? count + 1,
    waiting: wholeOrNull(payload.waiting) ?? count + 1,
    seconds: wholeOrNull(payload.seconds),
    secondsLow: wholeOrNull(payload.secondsLow),
    secondsHigh: wholeOrNull(payload.secondsHigh),
    status: ['scheduled', 'paused', 'closed'].includes(payload.status) ? payload.status : 'open',
    opensAt: textOrUndefined(payload.opensAt) ?? null,
    reason: rise ? null : reason,
    rise,
    stale: payload.stale === true,
  };
}

/** @returns {number | null} */
export function wholeOrNull(/** @type {unknown} */ value) {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : null;
}

/** @returns {number} the number of a socket; 0 where it can't be one */
export function openedOrZero(/** @type {unknown} */ value) {
  const opened = wholeOrNull(value) ?? 0;
  return opened <= OPENED_MAX ? opened : 0;
}

/** @returns {string | undefined} */
export function textOrUndefined(/** @type {unknown} */ value) {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** @returns {number | null} the first whole number of a text, as seconds within reason */
export function secondsIn(/** @type {string} */ text) {
  const digits = /\d+/.exec(text);
  return digits ? Math.min(Number(digits[0]), WAIT_MAX_SECONDS) : null;
}
