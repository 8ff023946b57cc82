// @ts-check
/**
 * The page by which visitors enter a site that has none of its own for it. It is reached through the
 * site's origin, uses the token up there, and goes on to `?to=`, a path of the same origin.
 */

import { enterUntilJudged, takeToken } from './entry.js';
import { element, setText, speak } from './page.js';

/** @typedef {'entering' | 'busy' | 'late' | 'invalid'} Outcome */

/**
 * Where the site is gone to: this path, where it is a path of this very origin and not of ours on it.
 *
 * @param {string | null} to
 * @param {string} origin
 * @returns {string} the whole address
 */
export function destination(to, origin) {
  const home = `${origin}/`;
  // Of what is no plain path a browser could make another host.
  if (!to || !/^\/(?![/\\])[!-[\]-~]*$/.test(to)) return home;
  const url = new URL(to, home);
  const isOurs = /^\/anteroom\//i.test(url.pathname);
  return url.origin === origin && !isOurs ? url.href : home;
}

/** Enters, and goes on. */
async function run() {
  const to = destination(new URLSearchParams(location.search).get('to'), location.origin);
  /** @type {Outcome} */
  let outcome = 'entering';
  const spoken = speak(() => paint());
  const paint = () => {
    const { say } = spoken.words;
    const isOutside = outcome === 'late' || outcome === 'invalid';
    element('room').dataset.tone = outcome === 'busy' ? 'warn' : isOutside ? 'off' : 'good';
    setText(element('title'), say('page'));
    setText(element('head'), say(isOutside ? `${outcome}Head` : 'enteringHead'));
    setText(element('text'), say(`${outcome}Text`));
    setText(element('link'), isOutside ? say('toWaiting') : '');
    // The site itself leads whoever is not inside to the waiting room.
    element('link').setAttribute('href', to);
    document.title = `${element('head').textContent} · ${say('page')}`;
  };
  const show = (/** @type {Outcome} */ next) => {
    outcome = next;
    paint();
  };
  paint();
  const token = takeToken();
  const entry = token ? await enterUntilJudged(token, () => show('busy')) : null;
  if (entry?.ok === false && entry.code === 'token_expired') show('late');
  else if (entry?.ok === false && entry.code !== 'token_already_used') show('invalid');
  // Without a token, or with one that another tab has used, the cookie is here, or the site knows what
  // to do.
  else location.replace(to);
}

if (typeof document !== 'undefined') await run();
