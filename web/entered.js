// @ts-check
/** The landing page of a queue that has no target of its own: uses the token up and says how that went. */

import { enterUntilJudged, pause, takeToken } from './entry.js';
import { askAboutQueue, element, queueOfAddress, setText, speak } from './page.js';

/** @typedef {'entering' | 'busy' | 'inside' | 'used' | 'late' | 'invalid' | 'outside'} Outcome */

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
const token = takeToken();
show(token ? await useToken(token) : await askWhetherInside());

/** @param {string} token @returns {Promise<typeof shown>} */
async function useToken(token) {
  const entry = await enterUntilJudged(token, () => show({ outcome: 'busy', until: null }));
  if (entry.ok) {
    noteUntil(entry.expiresAt);
    return { outcome: 'inside', until: instant(entry.expiresAt) };
  }
  switch (entry.code) {
    case 'token_already_used': {
      // By another tab of this browser, perhaps: then the cookie is here.
      const inside = await askWhetherInside();
      return inside.outcome === 'inside' ? inside : { outcome: 'used', until: null };
    }
    case 'token_expired':
      return { outcome: 'late', until: null };
    default:
      return { outcome: 'invalid', until: null };
  }
}

/** @returns {Promise<typeof shown>} */
async function askWhetherInside() {
  for (;;) {
    try {
      const response = await fetch(`/api/authorize?queue=${encodeURIComponent(queue)}`);
      if (response.ok) return { outcome: 'inside', until: instant(notedUntil()) };
      const isJudged = response.status < 500 && response.status !== 429;
      if (isJudged) return { outcome: 'outside', until: null };
    } catch {
      // No connection: the same to the visitor as a server that can't tell.
    }
    show({ outcome: 'busy', until: null });
    await pause(null);
  }
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
