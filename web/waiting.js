// @ts-check
/** The waiting page: a place in line, painted. What to show is decided in `view.js`. */

import { announcer } from './announce.js';
import { WaitingRoom } from './client.js';
import {
  askAboutQueue,
  element,
  queueOfAddress,
  setAttribute,
  setHidden,
  setText,
  setTextOnly,
  speak,
} from './page.js';
import { view } from './view.js';

/** Long enough to read "your turn", short against the time a token is valid. */
const MOVE_ON_AFTER_MS = 1500;
const TICK_MS = 1000;

const queue = queueOfAddress();
const spoken = speak(() => paint());
const announce = announcer(element('status'));
const room = new WaitingRoom(queue, {
  onChange: () => paint(),
  moveOnAfterMs: MOVE_ON_AFTER_MS,
  wasSentBack: dropToken(),
});

/** What is known of the queue apart from the place in it. */
const about = { title: '', isUnknown: false, clockAheadMs: 0 };
let isAskingToLeave = false;

listenToButtons();
room.start();
learnAboutQueue();
// Between pushes only the countdowns move, and the page does that by itself.
setInterval(paint, TICK_MS);

/** A site that sends its visitor back with the token in the fragment: it belongs in no address here. */
function dropToken() {
  if (!new URLSearchParams(location.hash.slice(1)).has('anteroom_token')) return false;
  history.replaceState(history.state, '', location.pathname + location.search);
  return true;
}

function paint() {
  const { words } = spoken;
  const { say } = words;
  const shown = view(stateToShow(), words, {
    now: performance.now(),
    today: new Date(Date.now() + about.clockAheadMs),
    offline: !navigator.onLine,
  });
  const focused = document.activeElement;

  setAttribute(element('room'), 'data-tone', shown.tone);
  setText(element('title'), about.title);
  setText(element('badge'), shown.badge);
  setHidden(element('message'), shown.head === '');
  setText(element('head'), shown.head);
  setText(element('text'), shown.text);
  setText(element('notice'), shown.notice);
  setText(element('reason'), shown.reason);
  setText(element('action'), shown.action ? say(shown.action) : '');
  setAttribute(element('action'), 'data-action', shown.action ?? '');
  paintLink(shown.link);
  paintNumbers(shown.numbers);
  paintLeave(shown.canLeave);
  setText(element('keep'), shown.keep);
  setTitle(`${shown.tab ? `${shown.tab} · ` : ''}${about.title || say('page')}`);
  announce(shown.head || shown.notice, spokenSummary(shown));

  // What had the focus may be gone; the reader goes on at what came instead.
  if (focused instanceof HTMLElement && !focused.offsetParent && focused !== document.body) {
    element('room').focus();
  }
}

function stateToShow() {
  if (!about.isUnknown) return room.state;
  const trouble = { code: 'unknown_queue', message: '', retryAfter: null };
  return { ...room.state, phase: /** @type {const} */ ('refused'), trouble };
}

/** @param {import('./view.js').Numbers | null} numbers */
function paintNumbers(numbers) {
  setHidden(element('numbers'), !numbers);
  if (!numbers) return;
  const { say } = spoken.words;
  setText(element('aheadLabel'), numbers.aheadLabel);
  setText(element('ahead'), numbers.ahead);
  setAttribute(element('ahead'), 'data-length', numbers.ahead.length > 6 ? 'long' : 'short');
  setText(element('estimate'), numbers.estimate);
  // Never hidden: its line stays, so that nothing below it jumps.
  setTextOnly(element('clock'), numbers.clock);
  const progress = /** @type {HTMLProgressElement} */ (element('progress'));
  if (progress.value !== numbers.progress) progress.value = numbers.progress;
  setAttribute(progress, 'aria-label', say('progress'));
  setText(element('moved'), numbers.moved);
  setText(element('positionLabel'), say('position'));
  setText(element('position'), numbers.position);
  setText(element('waitingLabel'), say('waiting'));
  setText(element('waiting'), numbers.waiting);
}

function paintLink(/** @type {string | null} */ target) {
  const link = /** @type {HTMLAnchorElement} */ (element('link'));
  setText(link, target ? spoken.words.say('goBackIn') : '');
  if (target) setAttribute(link, 'href', target);
}

function paintLeave(/** @type {boolean} */ canLeave) {
  const { say } = spoken.words;
  if (!canLeave) isAskingToLeave = false;
  setHidden(element('leave'), !canLeave);
  setHidden(element('leaveAsk'), isAskingToLeave);
  setHidden(element('leaveConfirm'), !isAskingToLeave);
  if (!canLeave) return;
  setTextOnly(element('leaveAsk'), say('leave'));
  setTextOnly(element('leaveQuestion'), say('leaveAsk'));
  setTextOnly(element('leaveYes'), say('leaveYes'));
  setTextOnly(element('leaveNo'), say('leaveNo'));
}

function setTitle(/** @type {string} */ title) {
  if (document.title !== title) document.title = title;
}

function spokenSummary(/** @type {import('./view.js').View} */ shown) {
  const { head, text, notice, reason, numbers } = shown;
  if (!numbers) return `${head}. ${text}`;
  const { ahead, estimate } = numbers;
  return [notice, reason, spoken.words.say('announced', { ahead, estimate })]
    .filter(Boolean)
    .join(' ');
}

function listenToButtons() {
  element('action').addEventListener('click', (event) => {
    const { action } = /** @type {HTMLElement} */ (event.currentTarget).dataset;
    if (action === 'goIn') room.moveOn();
    else if (action === 'reload') location.reload();
    else room.start();
  });
  const ask = (/** @type {boolean} */ isAsking, /** @type {string} */ focusOn) => {
    isAskingToLeave = isAsking;
    paint();
    element(focusOn).focus();
  };
  element('leaveAsk').addEventListener('click', () => ask(true, 'leaveNo'));
  element('leaveNo').addEventListener('click', () => ask(false, 'leaveAsk'));
  element('leaveYes').addEventListener('click', () => room.leave());
  element('leaveConfirm').addEventListener('keydown', (event) => {
    if (event.key === 'Escape') ask(false, 'leaveAsk');
  });
}

async function learnAboutQueue() {
  const answer = await askAboutQueue(queue, new URLSearchParams(location.search).get('target'));
  if (answer.target) room.leadTo(answer.target);
  about.title = answer.title;
  about.clockAheadMs = answer.clockAheadMs;
  about.isUnknown = answer.isUnknown;
  if (answer.isUnknown) room.stop();
  paintContent(answer.content);
  paint();
}

/** The operator's text: paragraphs, and addresses as links that leave the place alone. */
function paintContent(/** @type {string} */ content) {
  const paragraphs = content.split(/\n\s*\n/).filter((text) => text.trim() !== '');
  element('content').replaceChildren(...paragraphs.map(paragraph));
  setHidden(element('content'), paragraphs.length === 0);
}

function paragraph(/** @type {string} */ text) {
  const made = document.createElement('p');
  for (const part of text.trim().split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)])/)) {
    if (!/^https?:\/\//.test(part)) {
      made.append(part);
      continue;
    }
    const link = document.createElement('a');
    Object.assign(link, {
      href: part,
      textContent: part,
      target: '_blank',
      rel: 'noopener noreferrer',
    });
    made.append(link);
  }
  return made;
}
