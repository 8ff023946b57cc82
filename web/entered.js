// @ts-check
/** The landing page of a queue that has no target of its own: uses the token up and says how that went. */

import { enter, takeToken } from './client.js';
import { askAboutQueue, element, queueOfAddress, setText, speak } from './page.js';

/** @typedef {'entering' | 'busy' | 'inside' | 'used' | 'late' | 'invalid' | 'outside'} Outcome */

const RETRY_SECONDS = 3;
const RETRY_SECONDS_MAX = 30;

const queue = queueOfAddress();
const spoken = speak(() => paint());
/** Until when this tab may stay: a reload has a cookie that it can't read, so it is noted here. */
const untilEntry = `anteroom.${queue}.until`;

let title = '';

/** @type {{ outcome: Outcome, until: Date | null }} */
let shown = { outcome: 'entering', until: null };

paint();
askAboutQueue(queue).then((about) => {
  title = about.title;
  paint();
});
show(await tryUntilJudged());

/** @returns {Promise<typeof shown>} */
async function tryUntilJudged() {
  const token = takeToken();
  for (;;) {
    const answer = token ? await useToken(token) : await askWhetherInside();
    if (answer.outcome !== 'busy') return answer;
    show({ outcome: 'busy', until: null });
    await new Promise((resolve) => setTimeout(resolve, answer.retrySeconds * 1000));
  }
}

/** @typedef {{ outcome: Outcome, until: Date | null, retrySeconds: number }} Answer */

/** @param {string} token @returns {Promise<Answer>} */
async function useToken(token) {
  const entry = await enter(token);
  if (entry.ok) {
    noteUntil(entry.expiresAt);
    return answer('inside', instant(entry.expiresAt));
  }
  switch (entry.code) {
    case 'token_already_used': {
      // By another tab of this browser, perhaps: then the cookie is here.
      const inside = await askWhetherInside();
      return inside.outcome === 'inside' ? inside : answer('used');
    }
    case 'token_expired':
      return answer('late');
    case 'token_invalid':
      return answer('invalid');
    default:
      return busy(entry.retryAfter);
  }
}

/** @returns {Promise<Answer>} */
async function askWhetherInside() {
  try {
    const response = await fetch(`/api/authorize?queue=${encodeURIComponent(queue)}`);
    if (response.ok) return answer('inside', instant(notedUntil()));
    if (response.status < 500 && response.status !== 429) return answer('outside');
  } catch {
    // No connection: the same to the visitor as a server that can't tell.
  }
  return busy(null);
}

/** @param {Outcome} outcome @param {Date | null} [until] @returns {Answer} */
function answer(outcome, until = null) {
  return { outcome, until, retrySeconds: 0 };
}

/** @param {number | null} retryAfter @returns {Answer} */
function busy(retryAfter) {
  const seconds = Math.min(retryAfter ?? RETRY_SECONDS, RETRY_SECONDS_MAX);
  return { outcome: 'busy', until: null, retrySeconds: seconds * (1 + Math.random() / 2) };
}

function show(/** @type {typeof shown} */ next) {
  shown = next;
  paint();
}

function paint() {
  const { say, time } = spoken.words;
  const { outcome, until } = shown;
  const isOutside = ['used', 'late', 'invalid', 'outside'].includes(outcome);
  element('room').dataset.tone = outcome === 'busy' ? 'warn' : isOutside ? 'off' : 'good';
  setText(element('title'), title);
  setText(element('head'), say(outcome === 'busy' ? 'enteringHead' : `${outcome}Head`));
  setText(element('text'), say(`${outcome}Text`));
  setText(element('notice'), until ? say('insideUntil', { time: time(until) }) : '');
  setText(element('link'), isOutside ? say('toWaiting') : '');
  element('link').setAttribute('href', `/waiting/${encodeURIComponent(queue)}`);
  document.title = `${element('head').textContent} · ${title || queue}`;
}

/** @returns {Date | null} */
function instant(/** @type {unknown} */ text) {
  const read = new Date(typeof text === 'string' ? text : NaN);
  return Number.isNaN(read.getTime()) ? null : read;
}

function noteUntil(/** @type {string} */ expiresAt) {
  try {
    sessionStorage.setItem(untilEntry, expiresAt);
  } catch {
    // Forbidden: a reload then says "you are in" without a time.
  }
}

function notedUntil() {
  try {
    return sessionStorage.getItem(untilEntry);
  } catch {
    return null;
  }
}
