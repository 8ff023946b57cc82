// @ts-check
/** What the waiting page shows for a state: a pure function, so that every screen can be looked at. */

import { clock } from './words.js';

/**
 * @typedef {import('./client.js').State} State
 * @typedef {import('./client.js').Update} Update
 * @typedef {import('./words.js').Words} Words
 *
 * @typedef {object} Around What the state does not know.
 * @property {number} now on the clock of `performance.now()`
 * @property {Date} today by the server's clock as far as it is known
 * @property {boolean} offline
 *
 * @typedef {'again' | 'here' | 'retry' | 'reload' | 'goIn'} Action
 *
 * @typedef {object} View An empty text is not shown.
 * @property {'calm' | 'good' | 'warn' | 'off'} tone
 * @property {string} badge
 * @property {string} head
 * @property {string} text
 * @property {Numbers | null} numbers
 * @property {string} notice what is out of the ordinary while the numbers are shown
 * @property {string} reason the operator's words, or why the wait became longer
 * @property {Action | null} action
 * @property {string | null} link where a place that was used led to
 * @property {boolean} canLeave
 * @property {string} keep
 * @property {string} tab how the title of the tab begins
 *
 * @typedef {object} Numbers
 * @property {string} aheadLabel
 * @property {string} ahead
 * @property {string} estimate
 * @property {string} clock
 * @property {number} progress of the own way, 0 to 1
 * @property {string} moved
 * @property {string} position
 * @property {string} waiting
 */

/** Under three minutes the words say it all; a clock beside them would promise what nobody knows. */
const CLOCK_FROM_SECONDS = 180;
/** A range narrower than this says no more than one number. */
const RANGE_MINUTES_MIN = 2;
/** For so long it is said why the wait became longer: long enough for one who looks up now and then. */
const RISE_SHOWN_SECONDS = 90;

/**
 * @param {State} state
 * @param {Words} words
 * @param {Around} around
 * @returns {View}
 */
export function view(state, words, around) {
  if (state.phase === 'admitted') return admitted(state, words, around);
  if (state.phase === 'ended') return ended(state, words);
  if (state.phase === 'waiting' && state.update) return waiting(state, state.update, words, around);
  if (state.phase === 'waiting' || state.phase === 'joining' || state.phase === 'idle') {
    return joining(state, words, around);
  }
  return halted(state, words);
}

/** @param {State} state @param {Words} words @param {Around} around @returns {View} */
function joining(state, words, around) {
  const { say } = words;
  const trouble = state.trouble?.code;
  const next = nextAttempt(state, words, around);
  const message = (/** @type {string} */ head, /** @type {string} */ text) =>
    screen({ tone: 'warn', badge: say('badgeJoining'), head, text: `${text} ${next}`.trim() });
  if (trouble === 'queue_full') {
    return { ...message(say('fullHead'), say('fullText')), badge: say('badgeFull') };
  }
  if (trouble === 'rate_limited') return message(say('slowHead'), say('slowText'));
  if (trouble === 'log_unavailable') return message(say('unwrittenHead'), say('unwrittenText'));
  if (state.lostAt !== null) {
    const { reconnectWithin } = state;
    if (reconnectWithin === null) return message(say('unreachableHead'), say('unreachableText'));
    const time = words.duration(reconnectWithin);
    return message(say('unreachableHead'), say('unreachableKeptText', { time }));
  }
  return screen({ badge: say('badgeJoining'), head: say('joiningHead'), text: say('joiningText') });
}

/** @param {State} state @param {Update} update @param {Words} words @param {Around} around @returns {View} */
function waiting(state, update, words, around) {
  const { say } = words;
  const notice = noticeOf(state, update, words, around);
  const keep =
    state.reconnectWithin === null
      ? say('keepPlain')
      : say('keep', { time: words.duration(state.reconnectWithin) });
  const isCalm = notice === say('scheduledNotice');
  const badges = /** @type {const} */ ({
    scheduled: 'badgeScheduled',
    open: 'badgeWaiting',
    paused: 'badgePaused',
    closed: 'badgeClosed',
  });
  return screen({
    // That a line is not open yet is as it should be, and no warning.
    tone: notice && !isCalm ? 'warn' : 'calm',
    badge: say(badges[update.status]),
    numbers: {
      aheadLabel: say(update.count === 1 ? 'aheadOne' : 'ahead'),
      ahead: say('people', { n: words.number(update.count) }),
      ...estimateOf(state, update, words, around),
      ...ownWay(state, update, words),
      position: say('positionValue', { n: words.number(update.position) }),
      waiting: say('people', { n: words.number(update.waiting) }),
    },
    notice,
    reason: reasonOf(state, update, words, around),
    canLeave: !state.leaving,
    keep,
    tab: say('people', { n: words.number(update.count) }),
  });
}

/**
 * The operator's word is the only one where there is one.
 *
 * @param {State} state @param {Update} update @param {Words} words @param {Around} around
 */
function reasonOf({ rise }, update, { say }, { now }) {
  if (update.reason) return say('reason', { reason: update.reason });
  const isRecent = rise && (now - rise.at) / 1000 < RISE_SHOWN_SECONDS;
  return isRecent ? say(rise.why) : '';
}

/**
 * Counted down from the last push; the server's next one corrects it.
 *
 * @param {State} state @param {number | null} seconds @param {Around} around
 */
function secondsLeft(state, seconds, { now }) {
  if (seconds === null) return null;
  return Math.max(0, seconds - (now - (state.updatedAt ?? now)) / 1000);
}

/**
 * In minutes; null where it says no more than the estimate.
 *
 * @param {State} state @param {Update} update @param {Around} around
 */
function rangeLeft(state, update, around) {
  const low = secondsLeft(state, update.secondsLow, around);
  const high = secondsLeft(state, update.secondsHigh, around);
  if (low === null || high === null) return null;
  const range = { low: Math.max(1, Math.floor(low / 60)), high: Math.ceil(high / 60) };
  return range.high - range.low >= RANGE_MINUTES_MIN ? range : null;
}

/** @param {State} state @param {Update} update @param {Words} words @param {Around} around */
function estimateOf(state, update, words, around) {
  const { say } = words;
  if (update.status === 'paused') return { estimate: say('pausedEstimate'), clock: '' };
  if (update.status === 'closed') return { estimate: say('closedEstimate'), clock: '' };
  if (update.status === 'scheduled' && update.opensAt) {
    const opensAt = new Date(update.opensAt);
    const left = (opensAt.getTime() - around.today.getTime()) / 1000;
    if (left > 0) {
      const estimate = say('scheduledAt', { time: words.time(opensAt) });
      return { estimate, clock: say('scheduledIn', { time: clock(left) }) };
    }
  }
  const seconds = secondsLeft(state, update.seconds, around);
  const range = rangeLeft(state, update, around);
  // Beside a range a clock would take it back.
  const showsClock = seconds !== null && seconds >= CLOCK_FROM_SECONDS && !range;
  return { estimate: words.estimate(seconds, range), clock: showsClock ? clock(seconds) : '' };
}

/** @param {State} state @param {Update} update @param {Words} words */
function ownWay(state, update, { say, number }) {
  const start = Math.max(state.startCount ?? update.count, update.count);
  const moved = start - update.count;
  const progress = start === 0 ? 1 : moved / start;
  if (moved === 0) return { progress, moved: say('movedNone') };
  if (moved === 1) return { progress, moved: say('movedOne') };
  return { progress, moved: say('moved', { n: number(moved) }) };
}

/**
 * The most pressing one only.
 *
 * @param {State} state @param {Update} update @param {Words} words @param {Around} around
 */
function noticeOf(state, update, words, around) {
  const { say } = words;
  if (state.lostAt !== null) return lostNotice(state, words, around);
  if (state.leaving) return say('leavingNotice');
  if (state.trouble) return say('unwrittenNotice');
  if (update.stale) return say('staleNotice');
  if (update.status === 'paused') return say('pausedNotice');
  if (update.status === 'closed') return say('closedNotice');
  if (update.status === 'scheduled') return say('scheduledNotice');
  return '';
}

/** @param {State} state @param {Words} words @param {Around} around */
function lostNotice(state, words, around) {
  const { say } = words;
  if (state.leaving) return say('leavingLaterNotice');
  const within = state.reconnectWithin ?? 0;
  const time = words.duration(within);
  const lostFor = (around.now - (state.lostAt ?? around.now)) / 1000;
  const next = nextAttempt(state, words, around);
  if (lostFor > within) return `${say('lostLongNotice', { time })} ${next}`.trim();
  if (around.offline) return say('offlineNotice', { time });
  return `${say('lostNotice', { time: words.duration(within - lostFor) })} ${next}`.trim();
}

/** @param {State} state @param {Words} words @param {Around} around */
function nextAttempt(state, { say, number }, { now }) {
  if (state.link === 'up') return '';
  if (state.retryAt === null) return say('retryNow');
  const seconds = Math.ceil((state.retryAt - now) / 1000);
  return seconds > 0 ? say('retryIn', { n: number(seconds) }) : say('retryNow');
}

/** @param {State} state @param {Words} words @param {Around} around @returns {View} */
function admitted(state, { say }, { now }) {
  const { expiresIn, at } = state.admitted ?? { expiresIn: null, at: now };
  const left = expiresIn === null ? null : expiresIn - (now - at) / 1000;
  const isOver = left !== null && left <= 0;
  const validity = left === null ? '' : say('turnLeft', { time: clock(left) });
  return screen({
    tone: 'good',
    badge: say('badgeTurn'),
    head: say('turnHead'),
    text: isOver ? say('turnOver') : `${say('turnText')} ${validity}`.trim(),
    action: isOver ? 'retry' : 'goIn',
    tab: say('badgeTurn'),
  });
}

/** @param {State} state @param {Words} words @returns {View} */
function ended({ ended: reason, target }, { say }) {
  const common = { tone: /** @type {const} */ ('off'), badge: say('badgeOver') };
  switch (reason) {
    case 'left':
      return screen({
        ...common,
        head: say('endedLeftHead'),
        text: say('endedLeftText'),
        action: 'again',
      });
    case 'expired':
      return screen({
        ...common,
        head: say('endedExpiredHead'),
        text: say('endedExpiredText'),
        action: 'again',
      });
    case 'removed':
      return screen({ ...common, head: say('endedRemovedHead'), text: say('endedRemovedText') });
    case 'closed':
      return screen({
        ...common,
        badge: say('badgeClosed'),
        head: say('endedClosedHead'),
        text: say('endedClosedText'),
      });
    case 'redeemed':
      return screen({
        ...common,
        head: say('endedRedeemedHead'),
        text: say('endedRedeemedText'),
        action: 'again',
        link: target,
      });
    default:
      return screen({
        ...common,
        head: say('endedOtherHead'),
        text: say('endedOtherText'),
        action: 'again',
      });
  }
}

/** @param {State} state @param {Words} words @returns {View} */
function halted({ phase, trouble }, { say }) {
  const common = { tone: /** @type {const} */ ('off'), badge: say('badgeOver') };
  if (phase === 'replaced') {
    const badge = say('badgeElsewhere');
    return screen({
      ...common,
      badge,
      head: say('replacedHead'),
      text: say('replacedText'),
      action: 'here',
    });
  }
  if (trouble?.code === 'carried') {
    const badge = say('badgeCarried');
    return screen({ ...common, badge, head: say('carriedHead'), text: say('carriedText') });
  }
  if (phase === 'stopped') {
    return screen({
      ...common,
      head: say('stoppedHead'),
      text: say('stoppedText'),
      action: 'retry',
    });
  }
  if (trouble?.code === 'unknown_queue') {
    return screen({ ...common, head: say('unknownHead'), text: say('unknownText') });
  }
  return screen({
    ...common,
    head: say('refusedHead'),
    text: say('refusedText'),
    action: 'reload',
  });
}

/** @param {Partial<View>} parts @returns {View} */
function screen(parts) {
  return {
    tone: 'calm',
    badge: '',
    head: '',
    text: '',
    numbers: null,
    notice: '',
    reason: '',
    action: null,
    link: null,
    canLeave: false,
    keep: '',
    tab: '',
    ...parts,
  };
}
