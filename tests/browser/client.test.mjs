/** The rules of the client, without a browser. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { enter, renew, takeToken, WaitingRoom } from '../../web/client.js';
import { destination } from '../../web/enter.js';
import { FakeBrowser } from './fake-browser.mjs';
import { admitted, ended, failed, JOINED, update } from './scripted.mjs';

const UUID_V4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test('joins with a key of its own and keeps what comes back', () => {
  const { browser, room } = started();
  assert.equal(browser.socket.url, 'wss://anteroom.test/ws/concert');
  browser.socket.open();
  const [join] = browser.socket.said;
  assert.equal(join.type, 'JOIN');
  assert.match(join.joinKey, UUID_V4);
  assert.equal(room.state.phase, 'joining', 'not in line before the server has said so');

  browser.socket.hear(JOINED);
  browser.socket.hear(update({ count: 7 }));
  assert.equal(room.state.phase, 'waiting');
  assert.equal(room.state.update.count, 7);
  assert.deepEqual(stored(browser), {
    joinKey: join.joinKey,
    connectionId: 'connection-1',
    opened: 1,
    startCount: 7,
  });
});

test('resumes after a refresh, and knows how far it has come', () => {
  const { browser } = waiting(10);
  const room = new WaitingRoom('concert', { browser });
  room.start();
  browser.socket.open();
  assert.deepEqual(browser.socket.said, [reconnect(2)]);
  browser.socket.hear(JOINED);
  browser.socket.hear(update({ count: 4 }));
  assert.equal(room.state.startCount, 10);
});

test('two tabs that open together use one key', () => {
  const { browser } = started();
  const other = new WaitingRoom('concert', { browser });
  other.start();
  for (const socket of browser.sockets) socket.open();
  const [first, second] = browser.sockets.map((socket) => socket.said[0].joinKey);
  assert.equal(first, second);
});

test('reconnects with delays that double up to 20 s', () => {
  const { browser, room } = waiting();
  const delays = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    browser.socket.lose();
    delays.push(room.state.retryAt - browser.performance.now());
    browser.pass(delays.at(-1));
  }
  assert.deepEqual(delays, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
});

test('starts with the short delays again after a connection that held', () => {
  const { browser, room } = waiting();
  for (const delay of [500, 1000]) {
    browser.socket.lose();
    browser.pass(delay);
  }
  browser.socket.open();
  browser.socket.hear(JOINED);
  browser.pass(11_000);
  browser.socket.lose();
  assert.equal(room.state.retryAt - browser.performance.now(), 500);
});

test('waits as long as a node that goes has said', () => {
  const { browser, room } = waiting();
  browser.socket.lose(1012, 'restarting, come back in 7 s');
  assert.equal(room.state.retryAt - browser.performance.now(), 7000);
});

test('is patient when told to try later', () => {
  const { browser, room } = waiting();
  browser.socket.lose(1013);
  assert.equal(room.state.retryAt - browser.performance.now(), 8000);
});

test('1000 is the end', () => {
  const { browser, room } = waiting();
  browser.socket.lose(1000);
  assert.equal(room.state.phase, 'stopped');
  browser.pass(600_000);
  assert.equal(browser.sockets.length, 1);
});

test('takes silence for a dead connection', () => {
  const { browser, room } = waiting();
  browser.pass(44_000);
  assert.equal(room.state.link, 'up');
  browser.pass(2000);
  assert.equal(room.state.link !== 'up' && browser.sockets[0].isClosed, true);
});

test('gives a connection up that does not open', () => {
  const { browser } = started();
  browser.pass(16_000);
  assert.equal(browser.sockets.length, 2);
  assert.equal(browser.sockets[0].isClosed, true);
});

for (const reason of ['left', 'expired', 'removed', 'closed', 'redeemed']) {
  test(`ended (${reason}): forgets the place and does not rejoin by itself`, () => {
    const { browser, room } = waiting();
    const { joinKey } = stored(browser);
    browser.socket.hear(ended(reason));
    browser.socket.lose(1000);
    assert.equal(room.state.ended, reason);
    assert.equal(stored(browser), null);
    browser.pass(600_000);
    browser.happen('online');
    assert.equal(browser.sockets.length, 1);

    room.start();
    browser.socket.open();
    assert.equal(browser.socket.said[0].type, 'JOIN');
    assert.notEqual(browser.socket.said[0].joinKey, joinKey);
    assert.equal(browser.socket.said[0].opened, 1);
  });
}

test('the end of an old place leaves the new one of another tab alone', () => {
  const { browser, room } = waiting();
  const anothers = JSON.stringify({ joinKey: 'k', connectionId: 'connection-2' });
  browser.localStorage.setItem('anteroom.concert', anothers);
  browser.socket.hear(ended('left'));
  assert.equal(room.state.phase, 'ended');
  assert.equal(browser.localStorage.getItem('anteroom.concert'), anothers);
});

test('an unknown connection is forgotten, the key is not', () => {
  const { browser } = waiting();
  const { joinKey } = stored(browser);
  browser.socket.hear(failed('unknown_connection'));
  assert.deepEqual(stored(browser), { joinKey, opened: 1 });
  browser.pass(500);
  browser.socket.open();
  // The key stands for the same place, so its sockets are counted on.
  assert.deepEqual(browser.socket.said, [{ type: 'JOIN', joinKey, opened: 2 }]);
});

test('a replaced tab stays quiet until it is told to go on', () => {
  const { browser, room } = waiting();
  browser.socket.hear(failed('replaced'));
  assert.equal(room.state.phase, 'replaced');
  assert.equal(browser.socket.isClosed, true);
  browser.pass(600_000);
  browser.happen('online');
  browser.happen('pageshow', { persisted: true });
  assert.equal(browser.sockets.length, 1);
  room.start();
  browser.socket.open();
  assert.equal(browser.socket.said[0].type, 'RECONNECT');
});

test('counts the sockets of a place over losses, refreshes and unanswered joins', () => {
  const { browser } = started();
  browser.socket.open();
  assert.equal(browser.socket.said[0].opened, 1);
  browser.socket.lose();
  browser.pass(500);
  browser.socket.open();
  assert.equal(browser.socket.said[0].type, 'JOIN');
  assert.equal(browser.socket.said[0].opened, 2);
  browser.socket.hear(JOINED);
  browser.socket.lose();
  browser.pass(1000);
  browser.socket.lose();
  browser.pass(2000);
  browser.socket.open();
  assert.deepEqual(browser.socket.said, [reconnect(3)], 'one that did not open has no number');
  refreshed(browser);
  assert.deepEqual(browser.socket.said, [reconnect(4)]);
  assert.equal(stored(browser).opened, 4);
});

test('two tabs count on from each other', () => {
  const { browser, room } = waiting();
  const first = browser.socket;
  const other = refreshed(browser);
  const second = browser.socket;
  assert.deepEqual(second.said, [reconnect(2)]);
  second.hear(JOINED);
  first.hear(update({ count: 3 }));
  room.leadTo('https://shop.test/seats');
  first.hear(admitted);
  assert.equal(stored(browser).opened, 2, 'what the first tab notes leaves the number alone');
  first.lose();
  room.start();
  browser.socket.open();
  assert.deepEqual(browser.socket.said, [reconnect(3)]);
  second.lose();
  other.start();
  browser.socket.open();
  assert.deepEqual(browser.socket.said, [reconnect(4)]);
});

test('goes on above the highest number that it is told', () => {
  const { browser } = started();
  browser.socket.open();
  for (const [told, next] of [
    [40, 41],
    [3, 42],
    [undefined, 43],
  ]) {
    browser.socket.hear(joined(told));
    const room = refreshed(browser);
    assert.equal(browser.socket.said[0].opened, next);
    room.stop();
  }
});

test('a replaced tab that is told to go on is the newest', () => {
  for (const [told, next] of [
    [90, 91],
    [undefined, 2],
  ]) {
    const { browser, room } = waiting();
    const { type, payload } = failed('replaced');
    browser.socket.hear({ type, payload: { ...payload, opened: told } });
    assert.equal(room.state.phase, 'replaced');
    room.start();
    browser.socket.open();
    assert.deepEqual(browser.socket.said, [reconnect(next)]);
  }
});

test('a number that can be none counts for nothing, stored or told', () => {
  for (const odd of ['text', '7', '', -1, 1.5, 4_294_967_296, 1e300, null, true, [7], { 7: 7 }]) {
    const { browser, room } = waiting();
    browser.localStorage.setItem(
      'anteroom.concert',
      JSON.stringify({ ...stored(browser), opened: odd }),
    );
    room.start();
    browser.socket.open();
    assert.deepEqual(browser.socket.said, [reconnect(1)], JSON.stringify(odd));
    browser.socket.hear(joined(odd));
    assert.equal(room.state.phase, 'waiting');
    assert.equal(stored(browser).opened, 1, JSON.stringify(odd));
  }
});

test('a storage that is edited meanwhile does not take the number from a tab', () => {
  for (const edited of ['', '{', 'null', '7', '{"opened":1}']) {
    const { browser } = waiting();
    browser.localStorage.setItem('anteroom.concert', edited);
    browser.socket.lose();
    browser.pass(500);
    browser.socket.open();
    assert.deepEqual(browser.socket.said, [reconnect(2)]);
    browser.socket.hear(JOINED);
    assert.equal(stored(browser).opened, 2);
  }
});

test('the greatest number stays', () => {
  const { browser } = started();
  browser.socket.open();
  browser.socket.hear(joined(4_294_967_294));
  for (let round = 0; round < 3; round += 1) {
    refreshed(browser);
    assert.deepEqual(browser.socket.said, [reconnect(4_294_967_295)]);
    browser.socket.hear(joined(4_294_967_295));
  }
});

test('a new place of another tab is not counted with the old one', () => {
  const { browser } = waiting();
  const old = browser.socket;
  const anothers = { joinKey: 'k', connectionId: 'connection-2', opened: 70 };
  browser.localStorage.setItem('anteroom.concert', JSON.stringify(anothers));
  old.lose();
  browser.pass(500);
  browser.socket.open();
  assert.deepEqual(browser.socket.said, [reconnect(2)]);
  assert.deepEqual(stored(browser), anothers);
  browser.socket.hear(ended('left'));
  assert.deepEqual(stored(browser), anothers);
});

test('a place that was carried away is final here, and kept', () => {
  const { browser, room } = waiting();
  browser.socket.hear(failed('carried'));
  assert.equal(room.state.phase, 'refused');
  assert.equal(room.state.trouble.code, 'carried');
  browser.pass(600_000);
  browser.happen('online');
  browser.happen('pageshow', { persisted: true });
  assert.equal(browser.sockets.length, 1);
  // A refresh must not take a second place for someone who has one elsewhere.
  refreshed(browser);
  assert.equal(browser.socket.said[0].type, 'RECONNECT');
});

test('log_unavailable is not final while the socket is open', () => {
  const { browser, room } = started();
  browser.socket.open();
  browser.socket.hear(failed('log_unavailable', 5));
  assert.equal(room.state.trouble.code, 'log_unavailable');
  assert.equal(browser.socket.isClosed, false);
  browser.socket.hear(JOINED);
  assert.equal(room.state.phase, 'waiting');
  assert.equal(room.state.trouble, null);
});

test('a full queue is tried again, no sooner than it asked for', () => {
  const { browser, room } = started();
  browser.socket.open();
  browser.socket.hear(failed('queue_full', 20));
  assert.equal(browser.socket.isClosed, true);
  const delay = room.state.retryAt - browser.performance.now();
  assert.ok(delay >= 20_000 && delay <= 30_000);
});

test('an unknown queue is final', () => {
  const { browser, room } = started();
  browser.socket.open();
  browser.socket.hear(failed('unknown_queue'));
  browser.socket.lose(1008);
  assert.equal(room.state.phase, 'refused');
  browser.pass(600_000);
  assert.equal(browser.sockets.length, 1);
});

test('stores the token and moves on with it in the fragment', () => {
  const { browser, room } = waiting();
  browser.socket.hear(admitted);
  browser.socket.lose(1000);
  browser.pass(0);
  assert.equal(room.state.phase, 'admitted');
  assert.equal(browser.sessionStorage.getItem('waitingToken'), 'head.body.signature');
  assert.deepEqual(browser.visited, [
    'http://anteroom.test/entered/concert#anteroom_token=head.body.signature',
  ]);
});

test('a target that is no web address is not followed', () => {
  const { browser, room } = waiting();
  const payload = { ...admitted.payload, target: 'javascript:alert(1)' };
  browser.socket.hear({ ...admitted, payload });
  browser.pass(10_000);
  assert.deepEqual(browser.visited, []);
  assert.equal(room.state.phase, 'waiting');
});

test('leads to the page that was asked for, also where that is known late', () => {
  for (const isLate of [false, true]) {
    const { browser, room } = waiting();
    if (!isLate) room.leadTo('https://shop.test/seats?row=1');
    browser.socket.hear(admitted);
    if (isLate) room.leadTo('https://shop.test/seats?row=1');
    room.leadTo('javascript:alert(1)');
    browser.pass(0);
    assert.deepEqual(browser.visited, [
      'https://shop.test/seats?row=1#anteroom_token=head.body.signature',
    ]);
    assert.equal(stored(browser).target, 'https://shop.test/seats?row=1');
  }
});

test('a target that sent its visitor back is entered by its page of entry', () => {
  const { browser } = started({ wasSentBack: true });
  browser.socket.open();
  browser.socket.hear(JOINED);
  const target = 'https://shop.test/seats?row=1';
  browser.socket.hear({ ...admitted, payload: { ...admitted.payload, target } });
  browser.pass(0);
  assert.deepEqual(browser.visited, [
    'https://shop.test/anteroom/enter?to=%2Fseats%3Frow%3D1#anteroom_token=head.body.signature',
  ]);
});

test('gives up at once, or as soon as the connection is back', () => {
  const { browser, room } = waiting();
  room.leave();
  assert.deepEqual(browser.socket.said.at(-1), { type: 'LEAVE' });
  browser.socket.lose();
  browser.pass(500);
  browser.socket.open();
  browser.socket.hear(JOINED);
  assert.deepEqual(browser.socket.said.at(-1), { type: 'LEAVE' });
});

test('drops unread what is too long, and ignores what it does not know', () => {
  const { browser, room } = waiting(5);
  const before = room.state;
  browser.socket.hear(update({ count: 1, reason: 'x'.repeat(11_000) }));
  browser.socket.hear(update({ count: 1, reason: '가'.repeat(3_500) }));
  browser.socket.hear({ type: 'SOMETHING_NEW', payload: {} });
  for (const odd of [
    '',
    'null',
    '7',
    '[]',
    '{"type":"QUEUE_UPDATE"}',
    'not json',
    '{"type":"JOINED"}',
  ]) {
    browser.socket.hear(odd);
  }
  browser.socket.hear(update({ count: -1 }));
  assert.deepEqual(room.state, before);
  browser.socket.hear(update({ count: 4, unheardOf: true }));
  assert.equal(room.state.update.count, 4);
});

test('stop leaves nothing behind but the place', () => {
  const { browser, room } = waiting();
  room.stop();
  assert.equal(browser.socket.isClosed, true);
  assert.equal(browser.socket.listeners, 0);
  assert.equal(browser.listeners, 0);
  assert.equal(browser.timers.size, 0);
  assert.equal(stored(browser).connectionId, 'connection-1');
});

test('starting again and again piles nothing up', () => {
  const { browser, room } = waiting();
  const listeners = browser.listeners;
  for (let round = 0; round < 20; round += 1) room.start();
  assert.equal(browser.listeners, listeners);
  assert.equal(browser.timers.size, 1);
  assert.equal(browser.sockets.filter((socket) => !socket.isClosed).length, 1);
});

test('rests in the back/forward cache and goes on after it', () => {
  const { browser } = waiting();
  browser.happen('pagehide', { persisted: true });
  assert.equal(browser.socket.isClosed, true);
  assert.equal(browser.timers.size, 0);
  browser.happen('pageshow', { persisted: true });
  browser.socket.open();
  assert.deepEqual(browser.socket.said, [reconnect(2)]);
});

test('works where storage is forbidden', () => {
  const browser = new FakeBrowser();
  for (const name of ['localStorage', 'sessionStorage']) {
    Object.defineProperty(browser, name, {
      get() {
        throw new Error('SecurityError');
      },
    });
  }
  const room = new WaitingRoom('concert', { browser });
  room.start();
  browser.socket.open();
  browser.socket.hear(JOINED);
  browser.socket.lose();
  browser.pass(500);
  browser.socket.open();
  assert.deepEqual(browser.socket.said, [reconnect(2)]);
});

test('an edited storage is as good as an empty one', () => {
  for (const edited of ['', 'null', '[]', '{"connectionId":7,"startCount":-1}', '{']) {
    const browser = new FakeBrowser();
    browser.localStorage.setItem('anteroom.concert', edited);
    const room = new WaitingRoom('concert', { browser });
    room.start();
    browser.socket.open();
    assert.equal(browser.socket.said[0].type, 'JOIN');
  }
});

test('takes the token out of the address at once', () => {
  const browser = new FakeBrowser();
  browser.location.hash = '#anteroom_token=a.b.c';
  assert.equal(takeToken(browser), 'a.b.c');
  assert.deepEqual(browser.replaced, ['/waiting/concert?a=1']);
  browser.location.hash = '';
  assert.equal(takeToken(browser), 'a.b.c', 'known until it is used');
});

test('a second attempt to enter carries the same key, a used token is forgotten', async () => {
  const browser = new FakeBrowser();
  browser.location.hash = '#anteroom_token=a.b.c';
  const requests = [];
  const answers = [
    () => Promise.reject(new Error('no network')),
    () => Promise.resolve(response(503, { code: 'log_unavailable' }, { 'Retry-After': '4' })),
    () =>
      Promise.resolve(response(200, { pass: 'p', expiresAt: 'e', visitor: 'v', queue: 'concert' })),
  ];
  browser.fetch = (address, request) => {
    requests.push({ address, ...request });
    return answers.shift()();
  };
  const token = takeToken(browser);
  assert.deepEqual(await enter(token, browser), refusal('unreachable', 0, null));
  assert.deepEqual(await enter(token, browser), refusal('log_unavailable', 503, 4));
  const entry = await enter(token, browser);
  assert.deepEqual(entry, { ok: true, pass: 'p', expiresAt: 'e', visitor: 'v', queue: 'concert' });
  assert.deepEqual(new Set(requests.map(({ address }) => address)), new Set(['/anteroom/enter']));
  assert.equal(new Set(requests.map(({ headers }) => headers['Idempotency-Key'])).size, 1);
  assert.deepEqual(JSON.parse(requests[0].body), { token: 'a.b.c' });
  assert.equal(browser.sessionStorage.entries.size, 0);
});

test('a token that was used is reported by its code', async () => {
  const browser = new FakeBrowser();
  browser.fetch = () => Promise.resolve(response(409, { code: 'token_already_used' }));
  assert.deepEqual(await enter('a.b.c', browser), refusal('token_already_used', 409, null));
  assert.deepEqual(await enter(null, browser), refusal('no_token', 0, null));
});

test('a pass is renewed by its cookie', async () => {
  const browser = new FakeBrowser();
  const entry = { pass: 'p', expiresAt: 'e', visitor: 'v', queue: 'concert' };
  const answers = [response(200, entry), response(401, { code: 'pass_released' })];
  const requests = [];
  browser.fetch = async (address, { method }) => {
    requests.push(`${method} ${address}`);
    return answers.shift();
  };
  assert.deepEqual(await renew(browser), { ok: true, ...entry });
  assert.deepEqual(await renew(browser), refusal('pass_released', 401, null));
  assert.deepEqual(new Set(requests), new Set(['POST /anteroom/renew']));
});

test('who has entered goes on to a path of the site, and to no other', () => {
  const site = 'https://shop.test';
  for (const [to, expected] of [
    ['/seats?row=1&side=%2F', '/seats?row=1&side=%2F'],
    ['/a/../seats', '/seats'],
    [null, '/'],
    ['', '/'],
    ['seats', '/'],
    ['https://shop.test/seats', '/'],
    ['//evil.test/', '/'],
    ['/\\evil.test', '/'],
    ['/\t/evil.test', '/'],
    ['/anteroom/enter?to=/', '/'],
    ['/seats/../anteroom/enter', '/'],
    ['javascript:alert(1)', '/'],
  ]) {
    assert.equal(destination(to, site), site + expected, JSON.stringify(to));
  }
});

// What a test does

function started(options = {}) {
  const browser = new FakeBrowser();
  const room = new WaitingRoom('concert', { browser, ...options });
  room.start();
  return { browser, room };
}

function waiting(count = 10) {
  const { browser, room } = started();
  browser.socket.open();
  browser.socket.hear(JOINED);
  browser.socket.hear(update({ count, position: count + 1 }));
  return { browser, room };
}

/** Another page of the same browser: a refresh, or a second tab. */
function refreshed(browser) {
  const room = new WaitingRoom('concert', { browser });
  room.start();
  browser.socket.open();
  return room;
}

function reconnect(opened) {
  return { type: 'RECONNECT', connectionId: 'connection-1', opened };
}

function joined(opened) {
  return { ...JOINED, payload: { ...JOINED.payload, opened } };
}

function stored(browser) {
  return JSON.parse(browser.localStorage.getItem('anteroom.concert'));
}

function response(status, body, headers = {}) {
  return new Response(JSON.stringify(body), { status, headers });
}

function refusal(code, status, retryAfter) {
  return { ok: false, code, status, retryAfter };
}
