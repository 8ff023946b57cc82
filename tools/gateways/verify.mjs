/**
 * Verifies passes without asking anybody: who may be here, by the public keys that Anteroom publishes.
 *
 *   import { Passes } from './verify.mjs';
 *   const passes = new Passes('http://127.0.0.1:8080/.well-known/jwks.json', 'concert');
 *   const visitor = await passes.visitorOf(pass);   // throws if they may not be here
 *
 *   node verify.mjs JWKS-URL QUEUE [ISSUER]         # a pass a line on stdin: `ok VISITOR` or `no` a line
 *
 * A pass that was released early is good here until it ends; `GET /api/authorize` refuses it at once.
 */

import { createPublicKey, verify } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** Clocks may differ by this much. */
const SKEW_SECONDS = 30;
/** A longer text is no pass of Anteroom's. */
const PASS_CHARACTERS_MAX = 2048;
/** Keys are asked for no more often than this, whatever the passes that come say. */
const FETCH_EVERY_MS = 5_000;
/** Keys of this age are asked for again, so that one that was removed opens nothing for longer. */
const KEYS_AGE_MS_MAX = 60_000;
const FETCH_WAIT_MS_MAX = 3_000;

const PASS = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
const TEXTS = ['iss', 'aud', 'sub', 'jti'];
const INSTANTS = ['iat', 'nbf', 'exp'];

export class Passes {
  #url;
  #queue;
  #issuer;
  /** @type {Map<string, import('node:crypto').KeyObject>} by kid */
  #keys = new Map();
  #fetchedAt = -Infinity;
  #triedAt = -Infinity;
  /** @type {Promise<void> | null} */
  #fetching = null;

  constructor(jwksUrl, queue, issuer = 'anteroom') {
    this.#url = jwksUrl;
    this.#queue = queue;
    this.#issuer = issuer;
  }

  /** Whose pass this is; throws if it opens nothing here. */
  async visitorOf(pass) {
    if (pass.length > PASS_CHARACTERS_MAX || !PASS.test(pass)) throw new Error('not a pass');
    const [head, body, signature] = pass.split('.').map(decode);
    const header = parse(head);
    // What the pass says about itself chooses among our keys, and nothing else.
    if (header.alg !== 'EdDSA' || header.typ !== 'pass+jwt' || 'crit' in header) {
      throw new Error('another kind of token');
    }
    const key = await this.#key(header.kid);
    const signed = Buffer.from(pass.slice(0, pass.lastIndexOf('.')));
    if (!verify(null, signed, key, signature)) throw new Error('not signed by Anteroom');
    return this.#visitor(parse(body));
  }

  #visitor(claims) {
    const isWhole =
      TEXTS.every((name) => typeof claims[name] === 'string') &&
      INSTANTS.every((name) => Number.isSafeInteger(claims[name]));
    if (!isWhole) throw new Error('a claim is missing');
    if (claims.aud !== this.#queue) throw new Error('a pass of another queue');
    if (claims.iss !== this.#issuer) throw new Error('a pass of another issuer');
    const now = Date.now() / 1000;
    if (now + SKEW_SECONDS < claims.nbf) throw new Error('not good yet');
    if (now >= claims.exp + SKEW_SECONDS) throw new Error('its time is over');
    return claims.sub;
  }

  async #key(kid) {
    if (!this.#keys.has(kid)) await this.#fetch();
    // Those who have a key need not wait for newer ones.
    else if (performance.now() - this.#fetchedAt > KEYS_AGE_MS_MAX) void this.#fetch();
    const key = this.#keys.get(kid);
    if (!key) throw new Error('signed with an unknown key');
    return key;
  }

  /** Asks for the keys, if that was not just done. If it fails, the old ones stay. */
  #fetch() {
    if (this.#fetching) return this.#fetching;
    if (performance.now() - this.#triedAt < FETCH_EVERY_MS) return Promise.resolve();
    this.#triedAt = performance.now();
    this.#fetching = fetchKeys(this.#url)
      .then((keys) => {
        this.#keys = keys;
        this.#fetchedAt = performance.now();
      })
      .catch((error) => console.error(`${this.#url}: ${error.message}`))
      .finally(() => {
        this.#fetching = null;
      });
    return this.#fetching;
  }
}

async function fetchKeys(url) {
  const response = await fetch(url, { signal: AbortSignal.timeout(FETCH_WAIT_MS_MAX) });
  if (!response.ok) throw new Error(`it answered ${response.status}`);
  const { keys } = await response.json();
  const ours = keys.filter(({ kty, crv, kid }) => kty === 'OKP' && crv === 'Ed25519' && kid);
  // Of a node that has only just started; the old keys are better.
  if (ours.length === 0) throw new Error('it has no keys');
  return new Map(ours.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: 'jwk' })]));
}

/** Bytes of base64url, written in the one way that there is. */
function decode(text) {
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.toString('base64url') !== text) throw new Error('not base64url');
  return bytes;
}

function parse(bytes) {
  const value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  if (value === null || typeof value !== 'object') throw new Error('not an object');
  return value;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [url, queue, issuer] = process.argv.slice(2);
  if (!url || !queue) {
    console.error('usage: node verify.mjs JWKS-URL QUEUE [ISSUER] <passes');
    process.exit(2);
  }
  const passes = new Passes(url, queue, issuer);
  for await (const line of createInterface({ input: process.stdin })) {
    const visitor = await passes.visitorOf(line).catch(() => null);
    console.log(visitor === null ? 'no' : `ok ${visitor}`);
  }
}
