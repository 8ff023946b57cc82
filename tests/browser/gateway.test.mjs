/** A site behind a gateway, as somebody meets it who only wants a seat. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { complaintsOf, launchChromium, shoot } from './chromium.mjs';
import { startConcert } from './gateway.mjs';
import { startProgram } from './program.mjs';

let program;
let concert;
let browser;

before(async () => {
  program = await startProgram({ isPublic: true });
  concert = await startConcert(program.api);
  await program.operate('PUT', '/admin/queues/concert', {
    rate_per_minute: 60,
    title: 'Lantern Festival',
    allowed_origins: [concert.origin],
  });
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await concert?.stop();
  await program?.stop();
});

test('opens the concert, waits on another origin, comes back and takes a seat', async () => {
  await program.operate('POST', '/admin/queues/concert/pause', { reason: 'Doors open soon' });
  const context = await browser.newContext({ locale: 'en-GB' });
  const page = await context.newPage();
  const [complaints, addresses] = [complaintsOf(page), []];
  page.on('request', (request) => addresses.push(request.url()));
  page.on('websocket', (socket) => addresses.push(socket.url()));

  const wanted = `${concert.origin}/concert/?evening=2`;
  await page.goto(wanted);
  assert.equal(new URL(page.url()).origin, program.api, 'the line is on an origin of its own');
  await page.waitForFunction(() => document.querySelector('#ahead')?.textContent === '0');
  await shoot(page, 'gateway-waiting');

  await program.operate('POST', '/admin/queues/concert/resume');
  await page.waitForURL(wanted, { timeout: 30_000 });
  await page.click('button[data-is=free]');
  await page.waitForSelector('button[data-is=mine]');
  assert.equal(await page.textContent('#notice'), 'A1 is yours.');
  assert.equal(await page.locator('#seats button').count(), 32);
  await shoot(page, 'gateway-seat');

  // It is the browser that is inside, and not the page.
  await page.reload();
  await page.waitForSelector('button[data-is=mine]');
  assert.deepEqual(complaints, []);
  const logged = addresses.map((address) => address.split('#')[0]);
  for (const address of [...logged, ...(await concert.addresses())]) {
    assert.doesNotMatch(address, /token=|eyJ/, 'a token is in an address that a server sees');
  }
  await context.close();
});

test('whose pass is over is led back to the line by the page itself', async () => {
  const context = await browser.newContext({ locale: 'en-GB' });
  const page = await context.newPage();
  await page.goto(`${concert.origin}/concert/`);
  await page.waitForSelector('button[data-is=free]', { timeout: 30_000 });
  const [, visitor] = /Visitor (\S+)/.exec(await page.textContent('#visitor'));

  await program.operate('POST', '/admin/queues/concert/pause', {});
  await program.operate('POST', '/admin/queues/concert/release', { visitor });
  await page.waitForURL(`${program.api}/waiting/concert?target=**`, { timeout: 30_000 });
  // Their turn was used: a new place is at the end of the line, and theirs to take.
  await page.waitForFunction(
    () => document.querySelector('#head')?.textContent === 'You have already been let in',
  );
  await shoot(page, 'gateway-back');
  await page.click('#action');
  await page.waitForFunction(() => document.querySelector('#ahead')?.textContent === '0');
  await program.operate('POST', '/admin/queues/concert/resume');
  await page.waitForURL(`${concert.origin}/concert/`, { timeout: 30_000 });
  await page.waitForSelector('button[data-is=free]');
  await context.close();
});
