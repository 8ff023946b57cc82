/** What a visitor lives through, with the real program and a real browser. */

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';

import { complaintsOf, launchChromium, shoot } from './chromium.mjs';
import { startProgram } from './program.mjs';

const SLOW = { rate_per_minute: 1 };
const BRISK = { rate_per_minute: 60 };

let program;
let browser;
let contexts = [];
let complaints = [];
let addresses = [];

before(async () => {
  program = await startProgram();
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await program?.stop();
});

beforeEach(() => {
  complaints = [];
  addresses = [];
});

afterEach(async () => {
  for (const context of contexts) await context.close();
  contexts = [];
});

test('waits behind others, sees the number go down, and enters by itself', async () => {
  await createQueue('enters', { ...BRISK, title: 'Lantern Festival' });
  await program.operate('POST', '/admin/queues/enters/pause', {
    reason: 'until everybody is here',
  });
  await fill('enters', 4);
  const page = await visit('enters');
  await seeText(page, '#ahead', '4');
  await seeText(page, '#title', 'Lantern Festival');
  assert.equal(await page.textContent('#waiting'), '5');
  const before = Number(await page.textContent('#ahead'));

  await program.operate('POST', '/admin/queues/enters/resume');
  await page.waitForFunction(
    (number) => Number(document.querySelector('#ahead').textContent) < number,
    before,
  );
  await shoot(page, 'journey-moving');
  await page.waitForURL('**/entered/enters', { timeout: 60_000 });
  await seeText(page, '#head', 'You are in');
  await seeText(page, '#notice', /You can stay until/);
  await shoot(page, 'journey-inside');

  assert.equal(new URL(page.url()).hash, '', 'the token is out of the address');
  await page.reload();
  await seeText(page, '#head', 'You are in');
  assertTokenInNoAddress();
  assertNoComplaints();
});

test('counts the estimate down between pushes', async () => {
  await createQueue('counts', SLOW);
  await fill('counts', 8);
  const page = await visit('counts');
  await page.waitForFunction(() => /^\d+:\d\d$/.test(document.querySelector('#clock').textContent));
  const estimate = await page.textContent('#estimate');
  assert.match(estimate, /^In about \d+ minutes$/);
  const first = seconds(await page.textContent('#clock'));
  await page.waitForTimeout(3_500);
  const then = seconds(await page.textContent('#clock'));
  assert.ok(then < first && first - then <= 70, `from ${first} s to ${then} s`);
  await shoot(page, 'journey-counting');
  assertNoComplaints();
});

test('a refresh and a closed tab keep the place', async () => {
  await createQueue('keeps', SLOW);
  await fill('keeps', 3);
  const page = await visit('keeps');
  await seeNumber(page);
  await fill('keeps', 2);
  const position = await page.textContent('#position');

  await page.reload();
  await seeNumber(page);
  assert.ok(Number(await page.textContent('#position')) <= Number(position));

  const context = page.context();
  await page.close();
  const again = await visit('keeps', { context });
  await seeNumber(again);
  assert.ok(Number(await again.textContent('#position')) <= Number(position));
  assertNoComplaints();
});

test('two tabs are one place', async () => {
  await createQueue('tabs', SLOW);
  await fill('tabs', 2);
  const first = await visit('tabs');
  await seeNumber(first);
  const waiting = await first.textContent('#waiting');

  const second = await visit('tabs', { context: first.context() });
  await seeNumber(second);
  await seeText(first, '#head', 'This place is open in another tab');
  assert.equal(await second.textContent('#waiting'), waiting);
  await shoot(first, 'journey-other-tab');

  await first.click('#action');
  await seeNumber(first);
  await seeText(second, '#head', 'This place is open in another tab');
  assert.equal(await first.textContent('#waiting'), waiting);
  assertNoComplaints();
});

test('speaks Korean and English', async () => {
  await createQueue('speaks', SLOW);
  await fill('speaks', 8);
  const page = await visit('speaks', { locale: 'ko-KR' });
  await seeText(page, '#badge', '대기 중');
  assert.match(await page.textContent('#ahead'), /^\d+명$/);
  assert.match(await page.textContent('#estimate'), /^약 \d+분 후 입장 예정$/);
  assert.equal(await page.getAttribute('html', 'lang'), 'ko');
  await shoot(page, 'journey-korean');

  await page.click('[data-language=en]');
  await seeText(page, '#badge', 'In line');
  assert.match(await page.textContent('#estimate'), /^In about \d+ minutes$/);
  assert.equal(await page.getAttribute('html', 'lang'), 'en');

  await page.goto(`${program.api}/waiting/speaks?lang=ko`);
  await seeText(page, '#badge', '대기 중');
  assertNoComplaints();
});

test('gives up after being asked once more', async () => {
  await createQueue('leaves', SLOW);
  await fill('leaves', 3);
  const page = await visit('leaves');
  await seeNumber(page);
  await page.click('#leaveAsk');
  await page.click('#leaveNo');
  await page.click('#leaveAsk');
  await shoot(page, 'journey-giving-up');
  await page.click('#leaveYes');
  await seeText(page, '#head', 'You gave up your place');
  assert.equal(await page.evaluate(() => localStorage.getItem('anteroom.leaves')), null);
  await shoot(page, 'journey-gave-up');

  await page.click('#action');
  await seeNumber(page);
  assertNoComplaints();
});

test('says that the line is paused, and why', async () => {
  await createQueue('pauses', SLOW);
  await fill('pauses', 2);
  const page = await visit('pauses');
  await seeNumber(page);
  await program.operate('POST', '/admin/queues/pauses/pause', {
    reason: 'More seats are being added',
  });
  await seeText(page, '#badge', 'Paused');
  await seeText(page, '#reason', /More seats are being added/);
  await seeText(page, '#estimate', 'Nobody is let in at the moment');
  await shoot(page, 'journey-paused');

  await program.operate('POST', '/admin/queues/pauses/resume');
  await seeText(page, '#badge', 'In line');
  assertNoComplaints();
});

test('says that a token was used before', async () => {
  await createQueue('once', BRISK);
  const page = await visit('once');
  const token = await new Promise((resolve) => {
    page.on('framenavigated', (frame) => {
      const found = /#anteroom_token=(.+)/.exec(frame.url());
      if (found) resolve(found[1]);
    });
  });
  await seeText(page, '#head', 'You are in');

  const other = await visit('once', { path: `/entered/once#anteroom_token=${token}` });
  await seeText(other, '#head', 'This turn has already been used');
  assert.equal(await other.getAttribute('#link', 'href'), '/waiting/once');
  await shoot(other, 'journey-used');
  assertTokenInNoAddress();
});

test('says that there is no such line', async () => {
  const page = await visit('nowhere-to-be-found');
  await seeText(page, '#head', 'There is no such line');
});

// What a test does

async function createQueue(queue, policy) {
  await program.operate('PUT', `/admin/queues/${queue}`, policy);
}

/** Opens the page as a new visitor, or in the browser of a known one. */
async function visit(queue, { context, locale = 'en-GB', path = `/waiting/${queue}` } = {}) {
  const page = await (context ?? (await newVisitor(locale))).newPage();
  complaints.push(complaintsOf(page));
  page.on('request', (request) => addresses.push(request.url()));
  page.on('websocket', (socket) => addresses.push(socket.url()));
  await page.goto(program.api + path);
  return page;
}

async function newVisitor(locale) {
  const context = await browser.newContext({ locale, viewport: { width: 1024, height: 768 } });
  contexts.push(context);
  return context;
}

/** Puts people into the line, who stay as long as the test runs. */
async function fill(queue, people) {
  const page = await (await newVisitor('en-GB')).newPage();
  // A page of the node, from where sockets are welcome, that joins no line itself.
  await page.goto(`${program.api}/entered/${queue}`);
  await page.evaluate(
    async ([socketQueue, count]) => {
      const join = () =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://${location.host}/ws/${socketQueue}`);
          socket.onopen = () => socket.send('{"type":"JOIN"}');
          socket.onmessage = (event) => JSON.parse(event.data).type === 'JOINED' && resolve();
          socket.onclose = (event) => reject(new Error(`closed: ${event.code} ${event.reason}`));
          (globalThis.sockets ??= []).push(socket);
        });
      for (let joined = 0; joined < count; joined += 1) await join();
    },
    [queue, people],
  );
}

async function seeNumber(page) {
  await page.waitForFunction(() => /^\d/.test(document.querySelector('#ahead').textContent));
  await page.waitForSelector('#ahead', { state: 'visible' });
}

async function seeText(page, selector, expected) {
  const source = expected instanceof RegExp ? expected.source : null;
  await page
    .waitForFunction(
      ([where, text, pattern]) => {
        const found = document.querySelector(where)?.textContent ?? '';
        return pattern ? new RegExp(pattern).test(found) : found === text;
      },
      [selector, source ? null : expected, source],
      { timeout: 20_000 },
    )
    .catch(async (cause) => {
      const seen = await page.textContent('body').catch(() => 'nothing');
      throw new Error(
        `${selector} never said '${expected}'; the page: ${seen.replace(/\s+/g, ' ')}`,
        { cause },
      );
    });
}

function seconds(clock) {
  return clock.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** A request's address is what servers and proxies log. */
function assertTokenInNoAddress() {
  const logged = addresses.map((address) => address.split('#')[0]);
  assert.deepEqual(
    logged.filter((address) => /token=|eyJ/.test(address)),
    [],
  );
}

function assertNoComplaints() {
  assert.deepEqual(complaints.flat(), []);
}
