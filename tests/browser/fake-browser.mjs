/** What `client.js` needs of a `window`, with a clock and a network that a test moves by hand. */

export class FakeBrowser extends EventTarget {
  location = {
    protocol: 'https:',
    host: 'anteroom.test',
    href: 'https://anteroom.test/waiting/concert',
    pathname: '/waiting/concert',
    search: '?a=1',
    hash: '',
    replace: (address) => this.visited.push(address),
  };
  history = { state: null, replaceState: (_state, _title, address) => this.replaced.push(address) };
  crypto = globalThis.crypto;
  /** Always the longest delay that the jitter allows. */
  Math = { random: () => 1 };
  performance = { now: () => this.#now };
  localStorage = new FakeStorage();
  sessionStorage = new FakeStorage();
  visited = [];
  replaced = [];
  sockets = [];
  listeners = 0;
  timers = new Map();
  WebSocket;
  #now = 0;
  #timerIds = 0;

  constructor() {
    super();
    const { sockets } = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url) {
        super(url);
        sockets.push(this);
      }
    };
  }

  get socket() {
    return this.sockets.at(-1);
  }

  addEventListener(name, act, { signal }) {
    super.addEventListener(name, act, { signal });
    this.listeners += 1;
    signal.addEventListener('abort', () => {
      this.listeners -= 1;
    });
  }

  setTimeout(act, delayMs) {
    this.#timerIds += 1;
    this.timers.set(this.#timerIds, { act, at: this.#now + delayMs });
    return this.#timerIds;
  }

  clearTimeout(id) {
    this.timers.delete(id);
  }

  /** Lets time pass. */
  pass(ms) {
    const until = this.#now + ms;
    for (;;) {
      const [due] = [...this.timers]
        .filter(([, { at }]) => at <= until)
        .sort(([, a], [, b]) => a.at - b.at);
      if (!due) break;
      const [id, { act, at }] = due;
      this.timers.delete(id);
      this.#now = at;
      act();
    }
    this.#now = until;
  }

  happen(name, fields = {}) {
    this.dispatchEvent(Object.assign(new Event(name), fields));
  }
}

class FakeSocket extends EventTarget {
  said = [];
  isClosed = false;
  listeners = 0;

  constructor(url) {
    super();
    this.url = url;
  }

  addEventListener(name, act, { signal }) {
    super.addEventListener(name, act, { signal });
    this.listeners += 1;
    signal.addEventListener('abort', () => {
      this.listeners -= 1;
    });
  }

  send(text) {
    this.said.push(JSON.parse(text));
  }

  close() {
    this.isClosed = true;
  }

  // What the other side does

  open() {
    this.dispatchEvent(new Event('open'));
  }

  hear(message) {
    const data = typeof message === 'string' ? message : JSON.stringify(message);
    this.dispatchEvent(Object.assign(new Event('message'), { data }));
  }

  lose(code = 1006, reason = '') {
    this.dispatchEvent(Object.assign(new Event('close'), { code, reason }));
  }
}

class FakeStorage {
  entries = new Map();

  getItem(entry) {
    return this.entries.get(entry) ?? null;
  }

  setItem(entry, value) {
    this.entries.set(entry, String(value));
  }

  removeItem(entry) {
    this.entries.delete(entry);
  }
}
