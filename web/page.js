// @ts-check
/** What the waiting page and the landing page have in common. */

import { LANGUAGES, pickLanguage, wordsOf } from './words.js';

/** @typedef {import('./words.js').Language} Language */

const LANGUAGE_ENTRY = 'anteroom-language';

/** The queue that the address names: `/waiting/{queue}` or `/entered/{queue}`. */
export function queueOfAddress() {
  return decodeURIComponent(location.pathname.split('/')[2] ?? '');
}

/**
 * What is known of a queue apart from a place in it. Nothing depends on it but looks, so whatever
 * goes wrong here stops nobody from waiting.
 */
export async function askAboutQueue(
  /** @type {string} */ queue,
  /** @type {string | null} */ target = null,
) {
  /** @type {{ title: string, content: string, isUnknown: boolean, clockAheadMs: number, target: string | null }} */
  const answer = { title: queue, content: '', isUnknown: false, clockAheadMs: 0, target: null };
  try {
    const asked = target === null ? '' : `?target=${encodeURIComponent(target)}`;
    const response = await fetch(`/api/queues/${encodeURIComponent(queue)}${asked}`);
    const body = await response.json();
    answer.isUnknown = response.status === 404 && body.code === 'unknown_queue';
    if (!response.ok) return answer;
    if (typeof body.title === 'string' && body.title !== '') answer.title = body.title;
    if (typeof body.target === 'string') answer.target = body.target;
    if (typeof body.content === 'string') answer.content = body.content;
    // An opening time is counted down by the server's clock; the visitor's may be wrong.
    const served = Date.parse(response.headers.get('Date') ?? '');
    if (!Number.isNaN(served)) answer.clockAheadMs = served - Date.now();
  } catch {
    // The page then goes by the queue's id.
  }
  return answer;
}

/** @param {string} id @returns {HTMLElement} */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element '${id}'`);
  return found;
}

// Each of these touches the element only where something changed.

/** An empty text hides the element. */
export function setText(/** @type {HTMLElement} */ target, /** @type {string} */ text) {
  setTextOnly(target, text);
  setHidden(target, text === '');
}

export function setTextOnly(/** @type {HTMLElement} */ target, /** @type {string} */ text) {
  if (target.textContent !== text) target.textContent = text;
}

/** @param {HTMLElement} target @param {string} name @param {string} value */
export function setAttribute(target, name, value) {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

export function setHidden(/** @type {HTMLElement} */ target, /** @type {boolean} */ hidden) {
  if (target.hidden !== hidden) target.hidden = hidden;
}

/**
 * The words in the visitor's language, and the switch.
 *
 * @param {() => void} onChange
 */
export function speak(onChange) {
  const language = pickLanguage({
    search: location.search,
    chosen: storedLanguage(),
    preferred: navigator.languages,
  });
  const spoken = { words: wordsOf(language) };
  const group = element('languages');
  const show = () => {
    document.documentElement.lang = spoken.words.language;
    group.setAttribute('aria-label', spoken.words.say('language'));
    for (const button of group.querySelectorAll('button')) {
      button.setAttribute(
        'aria-pressed',
        String(button.dataset.language === spoken.words.language),
      );
    }
  };
  group.addEventListener('click', (event) => {
    const asked = /** @type {HTMLElement} */ (event.target).dataset.language;
    const known = LANGUAGES.find((language) => language === asked);
    if (!known) return;
    spoken.words = wordsOf(known);
    rememberLanguage(known);
    show();
    onChange();
  });
  show();
  return spoken;
}

function storedLanguage() {
  try {
    return localStorage.getItem(LANGUAGE_ENTRY);
  } catch {
    return null;
  }
}

/** In storage for the next page, and in the address where that has the last word. */
function rememberLanguage(/** @type {Language} */ language) {
  try {
    localStorage.setItem(LANGUAGE_ENTRY, language);
  } catch {
    // Forbidden: the choice then lasts for this page.
  }
  const url = new URL(location.href);
  if (!url.searchParams.has('lang')) return;
  url.searchParams.set('lang', language);
  history.replaceState(history.state, '', url);
}
