/** What anybody may have written into an address leads nowhere but to the site itself. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { destination } from '../../web/enter.js';

const CORPUS = new URL('../support/redirects.txt', import.meta.url);
const TARGETS = readFileSync(CORPUS, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
/** The site; the last one is where most of the corpus pretends to lead. */
const SITES = ['https://shop.test', 'http://localhost:3000', 'https://allowed.example'];

test('who has entered stays on the site, whatever the address asks for', () => {
  assert.ok(TARGETS.length >= 100, `only ${TARGETS.length}`);
  for (const site of SITES) {
    for (const target of TARGETS) {
      // As the page reads it, out of an address in which it is escaped or in which it is not.
      for (const to of [target, read(encodeURIComponent(target)), read(target)]) {
        const led = destination(to, site);
        assert.equal(new URL(led).origin, site, `${JSON.stringify(to)} leads to ${led}`);
        assert.equal(led, `${site}/`, JSON.stringify(to));
      }
    }
  }
});

test('most of what is refused would lead elsewhere, or to a script', () => {
  const elsewhere = TARGETS.filter((target) => leadsElsewhere(target, SITES[0]));
  assert.ok(elsewhere.length >= 100, `only ${elsewhere.length} of ${TARGETS.length}`);
});

function read(query) {
  return new URLSearchParams(`to=${query}`).get('to');
}

function leadsElsewhere(target, site) {
  try {
    return new URL(target, site).origin !== site;
  } catch {
    return false;
  }
}
