// @ts-check
/** A place in line: the socket, its losses, and what the server says on it, folded into one state. */

import {
  openedOrZero,
  readMessage,
  readUpdate,
  secondsIn,
  WAIT_MAX_SECONDS,
  wholeOrNull,
} from './message.js';
import { PlaceStore, storeToken, uuidV4 } from './storage.js';

/** @typedef {import('./message.js').Update} Update */
/** @typedef {import('./storage.js').Place} Place */

/**
 * @typedef {object} State Everything a page needs to tell visitors their situation.
 * @property {'idle' | 'joining' | 'waiting' | 'admitted' | 'ended' | 'replaced' | 'refused' | 'stopped'} phase
 *   `refused` is final (see `trouble`); `stopped` means that the server closed without a word
 * @property {'connecting' | 'up' | 'down'} link
 * @property {number | null} retryAt when the next attempt starts, on the clock of `performance.now()`
 * @property {number | null} lostAt since when the link is down
 * @property {number | null} reconnectWithin for how many seconds an absent visitor keeps the place
 * @property {Update | null} update
 * @property {number | null} updatedAt when it came
 * @property {{ why: import('./message.js').Rise, at: number } | null} rise the last that was told, and when
 * @property {number | null} startCount how many were ahead at first
 * @property {boolean} leaving the visitor gave up, the server does not know yet
 * @property {{ code: string, message: string, retryAfter: number | null } | null} trouble
 * @property {{ expiresIn: number | null, at: number } | null} admitted
 * @property {string | null} ended why the place is gone
 * @property {string | null} target where an admission led to
 */

/**
 * @typedef {object} Options
 * @property {(state: State) => void} [onChange]
 * @property {number} [moveOnAfterMs] how long "your turn" is shown before the page moves on
 * @property {boolean} [wasSentBack] the target lets nobody in who has no pass yet: it is entered by
 *   the site's own page of entry
 * @property {any} [browser]
 */

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 20_000;
/** Who is busy asks for patience: the first attempt after that is not one of the quick ones. */
const BACKOFF_ATTEMPT_BUSY = 4;
/** A connection that held for so long was a good one: the next loss starts at the shortest delay. */
const STEADY_MS = 10_000;
const OPEN_WITHIN_MS = 15_000;
/** The server speaks at least every 20 s. Twice that and a bit means that the connection is dead. */
const SILENCE_MAX_MS = 45_000;

/** Errors after which trying again would change nothing. */
const FINAL_ERRORS = new Set(['bad_message', 'unknown_queue', 'carried']);
/** Errors that stand in the way for a while; the socket is given back meanwhile. */
const PASSING_ERRORS = new Set(['queue_full', 'rate_limited', 'unavailable']);

/** A place in the line of one queue, kept over lost connections, refreshes and tabs. */
export class WaitingRoom {
  /** @type {string} */ #queue;
  /** @type {Required<Options>} */ #options;
  /** @type {any} */ #browser;
  /** @type {State} */ #state = STATE_AT_FIRST;
  /** @type {PlaceStore} */ #store;
  /** This tab's own ids: another tab may have ended the place and begun a new one in storage. */
  /** @type {Place} */ #place = {};
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {AbortController | null} */ #socketListeners = null;
  /** @type {AbortController | null} */ #pageListeners = null;
  /** Of the connection, one at a time: opening, silence, or the next attempt. */
  /** @type {any} */ #timer = null;
  /** @type {any} */ #moveOnTimer = null;
  #attempt = 0;
  /** @type {number | null} */ #joinedAt = null;
  /** @type {{ token: string, target: string } | null} */ #grant = null;
  /** @type {string | null} */ #wanted = null;

  /**
   * @param {string} queue
   * @param {Options} [options]
   */
  constructor(queue, options = {}) {
    this.#queue = queue;
    this.#browser = options.browser ?? globalThis;
    this.#options = {
      onChange() {},
      moveOnAfterMs: 0,
      wasSentBack: false,
      browser: this.#browser,
      ...options,
    };
    this.#store = new PlaceStore(queue, this.#browser);
  }

  /** @returns {State} a snapshot; a change makes a new one */
  get state() {
    return this.#state;
  }

  /** Joins, or resumes the place that this browser has. Also the way back from any final state. */
  start() {
    this.stop();
    this.#attempt = 0;
    this.#grant = null;
    this.#place = this.#store.read();
    this.#listenToPage();
    this.#set({ ...STATE_AT_FIRST, phase: 'joining', startCount: this.#place.startCount ?? null });
    this.#connect();
  }

  /** Gives the place up; the state says `ended` when the server has confirmed it. */
  leave() {
    if (this.#state.phase !== 'waiting') return;
    this.#set({ leaving: true });
    if (this.#joinedAt !== null) this.#send({ type: 'LEAVE' });
  }

  /** Moves on at once after an admission. */
  moveOn() {
    if (!this.#grant) return;
    const { token, target } = this.#grant;
    const address = new URL(target, this.#browser.location.href);
    const url = this.#options.wasSentBack ? entryOf(address) : address;
    // The fragment reaches no server and no log.
    url.hash = `anteroom_token=${token}`;
    this.#browser.location.replace(url.href);
  }

  /** Leads to this address at the visitor's turn, instead of where the queue leads to. */
  leadTo(/** @type {string} */ target) {
    if (!isWebAddress(target, this.#browser.location.href)) return;
    this.#wanted = target;
    if (!this.#grant) return;
    this.#grant = { ...this.#grant, target };
    this.#remember({ target });
    this.#set({ target });
  }

  /** Closes the socket and removes every listener and timer. The place itself is kept. */
  stop() {
    this.#rest();
    this.#pageListeners?.abort();
    this.#pageListeners = null;
  }

  // The page around it

  #listenToPage() {
    this.#pageListeners = new AbortController();
    const { signal } = this.#pageListeners;
    const listen = (/** @type {string} */ name, /** @type {(event: any) => void} */ act) =>
      this.#browser.addEventListener(name, act, { signal });
    // An open socket would keep the page out of the back/forward cache.
    listen('pagehide', () => this.#rest());
    listen('pageshow', (event) => {
      const goesOn = this.#isUnderway() || this.#state.phase === 'admitted';
      if (event.persisted && goesOn) this.start();
    });
    listen('online', () => {
      if (this.#state.link !== 'down' || !this.#isUnderway()) return;
      this.#attempt = 0;
      this.#retryIn(this.#jitter());
    });
  }

  #isUnderway() {
    return this.#state.phase === 'joining' || this.#state.phase === 'waiting';
  }

  // The socket

  #connect() {
    this.#drop();
    this.#set({ link: 'connecting', retryAt: null });
    const { WebSocket, location } = this.#browser;
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const address = `${scheme}://${location.host}/ws/${encodeURIComponent(this.#queue)}`;
    let socket;
    try {
      socket = new WebSocket(address);
    } catch {
      // A policy of the page forbids it, for example: the same to the visitor as no connection.
      this.#lost();
      return;
    }
    this.#socket = socket;
    this.#socketListeners = new AbortController();
    const { signal } = this.#socketListeners;
    socket.addEventListener('open', () => this.#hello(), { signal });
    socket.addEventListener('message', (/** @type {any} */ event) => this.#hear(event.data), {
      signal,
    });
    socket.addEventListener('close', (/** @type {any} */ event) => this.#closed(event), { signal });
    this.#after(OPEN_WITHIN_MS, () => this.#lost());
  }

  #hello() {
    this.#joinedAt = null;
    this.#set({ link: 'up' });
    this.#watchSilence();
    const { connectionId } = this.#place;
    if (connectionId) {
      this.#send({ type: 'RECONNECT', connectionId, opened: this.#countSocket() });
      return;
    }
    // Read again: two tabs opened together each made a key, and the one that was stored last counts.
    const joinKey =
      this.#place.joinKey ?? this.#store.read().joinKey ?? uuidV4(this.#browser.crypto);
    this.#remember({ joinKey });
    this.#send({ type: 'JOIN', joinKey, opened: this.#countSocket() });
  }

  /** By its number the log tells the newest socket of a place, in whatever order it hears of them. */
  #countSocket() {
    this.#place = this.#store.countSocket(this.#place);
    return this.#place.opened;
  }

  /** @param {object} message */
  #send(message) {
    this.#socket?.send(JSON.stringify(message));
  }

  /** @param {{ code: number, reason: string }} event */
  #closed({ code, reason }) {
    if (code === 1000) {
      this.#drop();
      if (this.#isUnderway()) this.#set({ phase: 'stopped', link: 'down' });
      return;
    }
    // A node that goes has spread its visitors itself, each has their own number.
    const stated = code === 1012 ? secondsIn(reason) : null;
    const delayMs = stated === null ? this.#spread(this.#state.trouble?.retryAfter) : stated * 1000;
    this.#lost({ delayMs, isBusy: code === 1013 });
  }

  /** @param {{ delayMs?: number | null, isBusy?: boolean }} [known] what the server said about the next attempt */
  #lost({ delayMs = null, isBusy = false } = {}) {
    this.#drop();
    if (!this.#isUnderway()) return;
    const now = this.#now();
    if (this.#joinedAt !== null && now - this.#joinedAt > STEADY_MS) this.#attempt = 0;
    this.#joinedAt = null;
    if (isBusy) this.#attempt = Math.max(this.#attempt, BACKOFF_ATTEMPT_BUSY);
    this.#set({ link: 'down', lostAt: this.#state.lostAt ?? now });
    this.#retryIn(delayMs ?? this.#jitter());
  }

  /** @param {number} delayMs */
  #retryIn(delayMs) {
    this.#attempt += 1;
    this.#set({ retryAt: this.#now() + delayMs });
    this.#after(delayMs, () => this.#connect());
  }

  /** Full jitter: a crowd that lost the same node does not come back as one. */
  #jitter() {
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.#attempt);
    return this.#browser.Math.random() * ceiling;
  }

  /** Takes the socket out of use without waiting for the other side, which may be dead. */
  #drop() {
    this.#browser.clearTimeout(this.#timer);
    this.#socketListeners?.abort();
    this.#socket?.close();
    this.#socket = null;
  }

  #rest() {
    this.#drop();
    this.#browser.clearTimeout(this.#moveOnTimer);
  }

  #watchSilence() {
    this.#after(SILENCE_MAX_MS, () => this.#lost());
  }

  // What the server says

  /** @param {unknown} data */
  #hear(data) {
    this.#watchSilence();
    const message = readMessage(data);
    if (!message) return;
    const payload = message.payload ?? {};
    if (message.type === 'JOINED') this.#joined(message.connectionId, payload);
    else if (message.type === 'QUEUE_UPDATE') this.#updated(payload);
    else if (message.type === 'ADMITTED') this.#admitted(payload);
    else if (message.type === 'ENDED') this.#ended(payload);
    else if (message.type === 'ERROR') this.#troubled(payload);
  }

  /** @param {any} connectionId @param {any} payload */
  #joined(connectionId, payload) {
    if (typeof connectionId !== 'string') return;
    this.#joinedAt = this.#now();
    this.#remember({ connectionId });
    this.#raise(payload.opened);
    this.#set({
      phase: 'waiting',
      lostAt: null,
      trouble: null,
      reconnectWithin: wholeOrNull(payload.reconnectWithin),
    });
    if (this.#state.leaving) this.#send({ type: 'LEAVE' });
  }

  /** @param {any} payload */
  #updated(payload) {
    const update = readUpdate(payload);
    if (!update || this.#state.phase !== 'waiting') return;
    if (this.#state.startCount === null) this.#remember({ startCount: update.count });
    const now = this.#now();
    this.#set({
      update,
      updatedAt: now,
      rise: update.rise ? { why: update.rise, at: now } : this.#state.rise,
      trouble: null,
      startCount: this.#state.startCount ?? update.count,
    });
  }

  /** @param {any} payload */
  #admitted({ token, target: usual, expiresIn }) {
    if (typeof token !== 'string' || !isWebAddress(usual, this.#browser.location.href)) return;
    if (this.#grant?.token === token) return;
    const target = this.#wanted ?? usual;
    this.#grant = { token, target };
    storeToken(token, this.#browser);
    this.#remember({ target });
    const admitted = { expiresIn: wholeOrNull(expiresIn), at: this.#now() };
    this.#set({ phase: 'admitted', trouble: null, admitted, target });
    this.#moveOnTimer = this.#browser.setTimeout(() => this.moveOn(), this.#options.moveOnAfterMs);
  }

  /** @param {any} payload */
  #ended({ reason }) {
    // It comes from storage, where anything may stand by now.
    const { target: stored } = this.#place;
    const target = stored && isWebAddress(stored, this.#browser.location.href) ? stored : null;
    this.#forgetPlace();
    this.#finish({ phase: 'ended', ended: String(reason), target, trouble: null });
  }

  /** @param {any} payload */
  #troubled(payload) {
    const code = String(payload.code);
    const retryAfter = wholeOrNull(payload.retryAfter);
    const trouble = { code, message: String(payload.message ?? ''), retryAfter };
    if (code === 'replaced') {
      // So that this tab can have the place back when its user wants that.
      this.#raise(payload.opened);
      this.#finish({ phase: 'replaced' });
    } else if (code === 'unknown_connection') {
      this.#place = this.#store.forgetConnection(this.#place);
      this.#set({ startCount: null });
      this.#lost();
    } else if (FINAL_ERRORS.has(code)) {
      this.#finish({ phase: 'refused', trouble });
    } else {
      this.#set({ trouble });
      if (PASSING_ERRORS.has(code)) this.#lost({ delayMs: this.#spread(retryAfter), isBusy: true });
    }
  }

  /**
   * Of those who were told the same number of seconds not all come back in the same one.
   * @param {number | null | undefined} seconds
   * @returns {number | null}
   */
  #spread(seconds) {
    if (seconds === null || seconds === undefined) return null;
    return Math.min(seconds, WAIT_MAX_SECONDS) * 1000 * (1 + this.#browser.Math.random() / 2);
  }

  /** @param {Partial<State>} change */
  #finish(change) {
    this.#grant = null;
    this.#rest();
    this.#set({ link: 'down', leaving: false, ...change });
  }

  // Small things

  /** @param {Partial<Place>} change */
  #remember(change) {
    this.#place = { ...this.#place, ...change };
    this.#store.write(this.#place);
  }

  /** @param {unknown} opened the highest number that the server knows */
  #raise(opened) {
    this.#place = this.#store.raise(this.#place, openedOrZero(opened));
  }

  #forgetPlace() {
    this.#store.forget(this.#place);
    this.#place = {};
  }

  /** @param {Partial<State>} change */
  #set(change) {
    this.#state = { ...this.#state, ...change };
    this.#options.onChange(this.#state);
  }

  /** @param {number} delayMs @param {() => void} act */
  #after(delayMs, act) {
    this.#browser.clearTimeout(this.#timer);
    this.#timer = this.#browser.setTimeout(act, delayMs);
  }

  #now() {
    return this.#browser.performance.now();
  }
}

/** @type {State} */
const STATE_AT_FIRST = {
  phase: 'idle',
  link: 'down',
  retryAt: null,
  lostAt: null,
  reconnectWithin: null,
  update: null,
  updatedAt: null,
  rise: null,
  startCount: null,
  leaving: false,
  trouble: null,
  admitted: null,
  ended: null,
  target: null,
};

/** The site's own page of entry, which goes on to this address. */
function entryOf(/** @type {URL} */ address) {
  const entry = new URL('/anteroom/enter', address);
  if (address.pathname === entry.pathname) return address;
  entry.searchParams.set('to', address.pathname + address.search);
  return entry;
}

/** A target is an address to go to, never a script to run. */
function isWebAddress(/** @type {unknown} */ target, /** @type {string} */ base) {
  if (typeof target !== 'string') return false;
  try {
    return ['http:', 'https:'].includes(new URL(target, base).protocol);
  } catch {
    return false;
  }
}
