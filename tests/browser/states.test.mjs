/** Every screen of the waiting page, with a node that says what it is told to. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, test } from 'node:test';

import { complaintsOf, launchChromium, shoot } from './chromium.mjs';
import {
  admitted,
  CONCERT,
  ended,
  failed,
  JOINED,
  json,
  ORIGIN,
  playNode,
  problem,
  serveFiles,
  update,
} from './scripted.mjs';

/** What the node says, and what then is read where; in English and in Korean. */
const SCREENS = {
  joining: [[], { '#head': ['Taking your place in line', '대기열에 들어가는 중입니다'] }],
  open: [
    [JOINED, update({ count: 2000 }), update()],
    {
      '#ahead': ['1,243', '1,243명'],
      '#position': ['1,244', '1,244번째'],
      '#waiting': ['51,234', '51,234명'],
      '#estimate': ['In about 13 minutes', '약 13분 후 입장 예정'],
      '#moved': ['You have moved up 757 places', '지금까지 757명 앞으로 왔습니다'],
    },
  ],
  range: [
    [JOINED, update({ count: 2000 }), update({ secondsLow: 750, secondsHigh: 930 })],
    {
      '#estimate': ['In about 12 to 16 minutes', '약 12~16분 후 입장 예정'],
      '#clock': ['', ''],
    },
  ],
  'narrow-range': [
    [JOINED, update({ secondsLow: 745, secondsHigh: 760 })],
    { '#estimate': ['In about 13 minutes', '약 13분 후 입장 예정'] },
  ],
  // The reason comes once, and is still said when the next numbers have none.
  'rate-lowered': [
    [JOINED, update({ seconds: 500 }), update({ reason: 'rate_lowered' }), update({ count: 1242 })],
    {
      '#ahead': ['1,242', '1,242명'],
      '#reason': [/fewer people are let in a minute/, /1분당 입장 인원이 줄었습니다/],
    },
  ],
  'line-slowed': [
    [JOINED, update({ reason: 'line_slowed' })],
    { '#reason': [/moves more slowly/, /천천히/] },
  ],
  'people-returned': [
    [JOINED, update({ reason: 'people_returned' })],
    { '#reason': [/people ahead of you have come back/, /돌아왔습니다/] },
  ],
  'opening-moved': [
    [
      JOINED,
      update({ status: 'scheduled', opensAt: '2099-01-01T11:00:00Z', reason: 'opening_moved' }),
    ],
    { '#reason': [/moved to a later time/, /늦춰졌습니다/], '#estimate': [/2099/, /2099/] },
  ],
  few: [
    [JOINED, update({ count: 1, seconds: 179 })],
    {
      '#aheadLabel': ['Person ahead of you', '내 앞에'],
      '#estimate': ['In about 2-3 minutes', '약 2-3분 후 입장 예정'],
    },
  ],
  soon: [
    [JOINED, update({ count: 0, seconds: 59 })],
    { '#ahead': ['0', '0명'], '#estimate': ['Entering soon', '곧 입장 가능합니다'] },
  ],
  unestimated: [
    [JOINED, update({ seconds: null })],
    { '#estimate': ["The wait can't be estimated yet", '아직 대기 시간을 예상할 수 없습니다'] },
  ],
  million: [[JOINED, update({ count: 1_234_567 })], { '#ahead': ['1,234,567', '1,234,567명'] }],
  scheduled: [
    [JOINED, update({ status: 'scheduled', seconds: null, opensAt: '2099-01-01T11:00:00Z' })],
    { '#badge': ['Not open yet', '오픈 전'], '#estimate': [/^Opens on .*2099/, /^2099.* 오픈$/] },
  ],
  paused: [
    [JOINED, update({ status: 'paused', seconds: null, reason: 'Sound check' })],
    {
      '#badge': ['Paused', '일시 중지'],
      '#reason': ['From the organiser: Sound check', '주최 측 안내: Sound check'],
    },
  ],
  closed: [
    [JOINED, update({ status: 'closed', seconds: null })],
    {
      '#badge': ['Closed', '종료'],
      '#estimate': ['Nobody else will be let in', '더 이상 입장하지 않습니다'],
    },
  ],
  stale: [[JOINED, update({ stale: true })], { '#notice': [/a little old/, /조금 전/] }],
  'not-written': [
    [failed('log_unavailable', 5)],
    { '#head': ['Joining takes longer than usual', '평소보다 오래 걸리고 있습니다'] },
  ],
  'log-away': [
    [JOINED, update(), failed('log_unavailable', 5)],
    { '#notice': [/Your place is safe/, /자리는 안전합니다/], '#ahead': ['1,243', '1,243명'] },
  ],
  lost: [
    [JOINED, update(), { close: { code: 1012, reason: '30' } }],
    { '#notice': [/kept for 5 minutes. Next attempt in \d+ s/, /5분 동안 .* \d+초 후/] },
  ],
  'not-reached': [
    [{ close: { code: 1012, reason: '30' } }],
    { '#head': ["We can't reach the line", '대기열에 연결할 수 없습니다'] },
  ],
  admitted: [
    [JOINED, admitted],
    {
      '#head': ['It is your turn', '입장할 차례입니다'],
      '#action': ['Enter now', '지금 입장하기'],
    },
  ],
  left: [
    [JOINED, ended('left')],
    {
      '#head': ['You gave up your place', '대기를 포기했습니다'],
      '#action': ['Join again', '다시 대기하기'],
    },
  ],
  expired: [
    [JOINED, ended('expired')],
    {
      '#head': ['Your place has expired', '자리가 만료되었습니다'],
      '#action': ['Join again', '다시 대기하기'],
    },
  ],
  removed: [
    [JOINED, ended('removed')],
    {
      '#head': ['You were taken out of the line', '대기열에서 제외되었습니다'],
      '#action': ['', ''],
    },
  ],
  over: [
    [JOINED, ended('closed')],
    { '#head': ['The line is closed', '대기열이 종료되었습니다'], '#action': ['', ''] },
  ],
  redeemed: [
    [JOINED, ended('redeemed')],
    {
      '#head': ['You have already been let in', '이미 입장했습니다'],
      '#action': ['Join again', '다시 대기하기'],
    },
  ],
  replaced: [
    [JOINED, update(), failed('replaced')],
    {
      '#head': ['This place is open in another tab', '다른 탭에서 이 자리를 사용 중입니다'],
      '#action': ['Use it here', '여기서 사용하기'],
    },
  ],
  carried: [
    [JOINED, update(), failed('carried')],
    {
      '#badge': ['On another device', '다른 기기에서 사용 중'],
      '#head': ['This place is on another device now', '이 자리는 다른 기기로 옮겨졌습니다'],
      '#action': ['', ''],
    },
  ],
  unknown: [[failed('unknown_queue')], { '#head': ['There is no such line', '없는 대기열입니다'] }],
  full: [
    [failed('queue_full', 20)],
    {
      '#head': ['The line is full right now', '지금은 대기열이 가득 찼습니다'],
      '#text': [/Next attempt in \d+ s/, /\d+초 후/],
    },
  ],
  slow: [
    [failed('rate_limited', 20)],
    { '#head': ['A little slower, please', '잠시 후 다시 시도합니다'] },
  ],
  refused: [
    [failed('bad_message')],
    {
      '#head': ['This page could not join the line', '대기열에 들어갈 수 없습니다'],
      '#action': ['Reload', '새로고침'],
    },
  ],
};

/** Each language in one of the schemes and one of the sizes, so that both are seen in both. */
const LOOKS = [
  { language: 0, locale: 'en-GB', colorScheme: 'light', viewport: { width: 1200, height: 800 } },
  { language: 1, locale: 'ko-KR', colorScheme: 'dark', viewport: { width: 1200, height: 800 } },
  { language: 0, locale: 'en-GB', colorScheme: 'dark', viewport: { width: 320, height: 640 } },
  { language: 1, locale: 'ko-KR', colorScheme: 'light', viewport: { width: 320, height: 640 } },
];

let browser;
let contexts = [];

before(async () => {
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
});

afterEach(async () => {
  for (const context of contexts) await context.close();
  contexts = [];
});

for (const look of LOOKS) {
  const { locale, colorScheme, viewport } = look;
  const named = `${locale.slice(0, 2)}-${colorScheme}-${viewport.width}`;
  test(`every screen says its words, fits and is accessible (${named})`, async (t) => {
    for (const [name, [messages, expected]] of Object.entries(SCREENS)) {
      await t.test(name, async () => {
        const { page, complaints } = await open(look, messages);
        for (const [selector, texts] of Object.entries(expected)) {
          await seeText(page, selector, texts[look.language]);
        }
        // A transition of the bar, and the fonts, settle before the look.
        await page.waitForTimeout(100);
        await shoot(page, `${name}-${named}`);
        await assertFits(page);
        await assertAccessible(page);
        assert.deepEqual(complaints, []);
      });
    }
  });
}

test("shows the operator's own content, with links that keep the place", async () => {
  const about = { ...CONCERT['/api/queues/concert'] };
  const content = 'Doors at 18:00.\n\nSeats: https://example.org/seats. <b>Enjoy!</b>';
  const answers = {
    '/api/queues/concert': () =>
      json({ queue: 'concert', title: 'Lantern Festival', content, ...about }),
  };
  const { page } = await open(LOOKS[0], [JOINED, update()], answers);
  await seeText(page, '#content a', 'https://example.org/seats');
  assert.equal(await page.locator('#content p').count(), 2);
  assert.equal(await page.locator('#content b').count(), 0, 'text is text');
  assert.equal(await page.getAttribute('#content a', 'target'), '_blank');
  await shoot(page, 'content');
});

test("works without knowing the queue's title", async () => {
  const { page } = await open(LOOKS[0], [JOINED, update()], {
    '/api/queues/concert': () => problem(503, 'unavailable'),
  });
  await seeText(page, '#title', 'concert');
  await seeText(page, '#ahead', '1,243');
});

test('counts down by itself and renders nothing else meanwhile', async () => {
  const { page } = await open(LOOKS[0], [JOINED, update({ seconds: 200 })]);
  await seeText(page, '#clock', /^3:1\d$/);
  await page.evaluate(() => {
    globalThis.changed = new Set();
    new MutationObserver((records) => {
      for (const { target } of records) changed.add(target.id || target.parentElement?.id);
    }).observe(document.documentElement, {
      subtree: true,
      childList: true,
      characterData: true,
      attributes: true,
    });
  });
  const first = await page.textContent('#clock');
  await page.waitForTimeout(2_500);
  assert.ok((await page.textContent('#clock')) < first);
  assert.deepEqual(await page.evaluate(() => [...changed]), ['clock']);
});

test('tells screen readers of new numbers seldom', async () => {
  const { page, sockets } = await open(LOOKS[0], [JOINED, update({ count: 50 })]);
  await seeText(page, '#status', /\S/);
  await page.evaluate(() => {
    globalThis.spoken = 0;
    const count = () => {
      spoken += 1;
    };
    new MutationObserver(count).observe(document.querySelector('#status'), {
      childList: true,
      subtree: true,
    });
  });
  for (let ahead = 49; ahead > 29; ahead -= 1) {
    sockets[0].send(update({ count: ahead }));
    await page.waitForTimeout(100);
  }
  await seeText(page, '#ahead', '30');
  assert.equal(await page.evaluate(() => spoken), 0);
});

test('can be given up and taken up again with the keyboard alone', async () => {
  const { page, sockets } = await open(LOOKS[0], [JOINED, update()]);
  await seeText(page, '#ahead', '1,243');
  await page.focus('#leaveAsk');
  await page.keyboard.press('Enter');
  assert.equal(await focused(page), 'leaveNo');
  await page.keyboard.press('Escape');
  assert.equal(await focused(page), 'leaveAsk');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  assert.equal(await focused(page), 'leaveYes');
  await shoot(page, 'leaving');
  await page.keyboard.press('Enter');
  await page.waitForTimeout(100);
  assert.deepEqual(sockets[0].said.at(-1), { type: 'LEAVE' });
  sockets[0].send(ended('left'));
  await seeText(page, '#head', 'You gave up your place');
  assert.equal(await focused(page), 'room', 'the focus does not get lost');
});

test('leaves no trace of the place in an address, and closes its socket when it goes', async () => {
  const { page, sockets } = await open(LOOKS[0], [JOINED, update()]);
  await seeText(page, '#ahead', '1,243');
  assert.deepEqual(
    sockets.map(({ url }) => url),
    ['ws://anteroom.test/ws/concert'],
  );
  await page.goto(`${ORIGIN}/entered/concert`);
  await page.waitForTimeout(200);
  assert.equal(sockets[0].isClosed, true);
});

const LANDINGS = {
  token_already_used: ['This turn has already been used', 409],
  token_expired: ['Your turn has expired', 401],
  token_invalid: ['This turn is not valid', 401],
};

for (const [code, [head, status]] of Object.entries(LANDINGS)) {
  test(`the landing page says ${code} plainly`, async () => {
    const { page } = await land({ '/anteroom/enter': () => problem(status, code) });
    await seeText(page, '#head', head);
    assert.equal(await page.getAttribute('#link', 'href'), '/waiting/concert');
    await shoot(page, code);
    await assertAccessible(page);
  });
}

test('the landing page keeps trying while the log is away, and then lets in', async () => {
  const answers = [
    () => problem(503, 'log_unavailable'),
    () => json({ pass: 'p', expiresAt: '2099-01-01T11:00:00Z', visitor: 'v', queue: 'concert' }),
  ];
  const { page } = await land({ '/anteroom/enter': () => answers.shift()() });
  await seeText(page, '#text', /we keep trying/);
  await shoot(page, 'landing-busy');
  await seeText(page, '#head', 'You are in');
  await seeText(page, '#notice', /2099/);
  await shoot(page, 'landing-inside');
  await assertAccessible(page);
});

test('the landing page without a token points to the waiting room', async () => {
  const { page } = await land({}, '');
  await seeText(page, '#head', 'You are not inside');
  await shoot(page, 'landing-outside');
});

const ENTRIES = {
  token_expired: ['Your turn has expired', 401],
  token_invalid: ['This turn is not valid', 401],
};

for (const [code, [head, status]] of Object.entries(ENTRIES)) {
  test(`the page of entry says ${code} plainly`, async () => {
    const { page } = await enterBy('/seats', () => problem(status, code));
    await seeText(page, '#head', head);
    assert.equal(await page.getAttribute('#link', 'href'), `${ORIGIN}/seats`);
    assert.equal(new URL(page.url()).hash, '', 'the token is out of the address');
    await shoot(page, `entry-${code}`);
    await assertAccessible(page);
  });
}

test('the page of entry keeps trying while the log is away, and then goes on', async () => {
  const answers = [
    () => problem(503, 'log_unavailable'),
    () => json({ pass: 'p', expiresAt: '2099-01-01T11:00:00Z', visitor: 'v', queue: 'concert' }),
  ];
  const { page } = await enterBy('/seats?row=1', () => answers.shift()());
  await seeText(page, '#text', /we keep trying/);
  await shoot(page, 'entry-busy');
  await assertAccessible(page);
  await page.waitForURL(`${ORIGIN}/seats?row=1`);
});

test('the page of entry goes on with a token that another tab has used, or without any', async () => {
  const used = await enterBy('/seats', () => problem(409, 'token_already_used'));
  await used.page.waitForURL(`${ORIGIN}/seats`);
  const none = await enterBy('/seats', () => assert.fail('nothing to be used'), '');
  await none.page.waitForURL(`${ORIGIN}/seats`);
});

test('a page that the site sent back to drops the token from its address', async () => {
  const { page } = await newPage(LOOKS[0], CONCERT);
  await playNode(page, () => {});
  await page.goto(`${ORIGIN}/waiting/concert?lang=en#anteroom_token=head.body.signature`);
  await page.waitForURL(`${ORIGIN}/waiting/concert?lang=en`);
});

// What a test does

/** Opens the waiting page; the node says all the messages on the first socket, and nothing on later ones. */
async function open(look, messages, answers = {}) {
  const { context, page, complaints } = await newPage(look, { ...CONCERT, ...answers });
  const sockets = await playNode(page, (socket, said, nth) => {
    if (nth > 1 || !['JOIN', 'RECONNECT'].includes(said.type)) return;
    for (const message of messages) {
      if (message.close) socket.close(message.close);
      else socket.send(message);
    }
  });
  await page.goto(`${ORIGIN}/waiting/concert`);
  return { context, page, complaints, sockets };
}

async function land(answers, hash = '#anteroom_token=head.body.signature') {
  const outside = { '/api/authorize': () => problem(403, 'no_pass') };
  const made = await newPage(LOOKS[0], { ...CONCERT, ...outside, ...answers });
  await made.page.goto(`${ORIGIN}/entered/concert${hash}`);
  return made;
}

/** Opens the site's page of entry, which is to go on to this path. */
async function enterBy(to, answer, hash = '#anteroom_token=head.body.signature') {
  const answers = {
    '/anteroom/enter': answer,
    '/seats': () => ({ contentType: 'text/html', body: '<h1>Seats</h1>' }),
  };
  const made = await newPage(LOOKS[0], answers);
  await made.page.goto(`${ORIGIN}/anteroom/enter?to=${encodeURIComponent(to)}${hash}`);
  return made;
}

async function newPage({ locale, colorScheme, viewport }, answers) {
  const context = await browser.newContext({
    locale,
    colorScheme,
    viewport,
    timezoneId: 'Asia/Seoul',
  });
  contexts.push(context);
  await serveFiles(context, answers);
  const page = await context.newPage();
  return { context, page, complaints: complaintsOf(page) };
}

async function seeText(page, selector, expected) {
  const locator = page.locator(selector);
  const matches = (text) => (expected instanceof RegExp ? expected.test(text) : text === expected);
  const until = Date.now() + 8_000;
  let text = await locator.textContent();
  while (!matches(text) && Date.now() < until) {
    await page.waitForTimeout(20);
    text = await locator.textContent();
  }
  assert.ok(matches(text), `${selector} says '${text}' instead of '${expected}'`);
}

async function focused(page) {
  return page.evaluate(() => document.activeElement.id);
}

async function assertFits(page) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${overflow} pixels too wide`);
}

async function assertAccessible(page) {
  const axe = await readFile(
    new URL('./node_modules/axe-core/axe.min.js', import.meta.url),
    'utf8',
  );
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const found = await globalThis.axe.run({
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    });
    return found.violations.map(
      ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`,
    );
  });
  assert.deepEqual(violations, []);
}
