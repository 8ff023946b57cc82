// @ts-check
/** Everything the pages say, in each language, and how numbers and times are said. */

/** @typedef {'ko' | 'en'} Language */

export const LANGUAGES = /** @type {const} */ (['ko', 'en']);

/**
 * `?lang=` first, then what the visitor chose before, then what the browser prefers.
 *
 * @param {{ search: string, chosen: string | null, preferred: readonly string[] }} from
 * @returns {Language}
 */
export function pickLanguage({ search, chosen, preferred }) {
  const wishes = [new URLSearchParams(search).get('lang'), chosen, ...preferred];
  for (const wish of wishes) {
    const known = LANGUAGES.find((language) => wish?.toLowerCase().split('-')[0] === language);
    if (known) return known;
  }
  return 'en';
}

/**
 * The words of one language.
 *
 * @param {Language} language
 */
export function wordsOf(language) {
  const texts = TEXTS[language];
  const numbers = new Intl.NumberFormat(language);
  const times = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });

  /** @param {keyof typeof TEXTS.en} key @param {Record<string, string>} [values] */
  const say = (key, values = {}) =>
    texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');

  const number = (/** @type {number} */ value) => numbers.format(value);

  return {
    language,
    say,
    number,

    time: (/** @type {Date} */ instant) => times.format(instant),

    /** Rounded up to minutes or hours where that is exact enough. */
    duration(/** @type {number} */ seconds) {
      if (seconds < 60) return say('seconds', { n: number(Math.ceil(seconds)) });
      const minutes = Math.ceil(seconds / 60);
      if (minutes === 1) return say('minute');
      if (minutes < 120) return say('minutes', { n: number(minutes) });
      return say('hours', { n: number(Math.ceil(minutes / 60)) });
    },

    /**
     * The estimate as a person would say it.
     *
     * @param {number | null} seconds
     * @param {{ low: number, high: number } | null} [range] in minutes, where it is worth saying
     */
    estimate(seconds, range = null) {
      if (seconds === null) return say('estimateUnknown');
      if (seconds < 60) return say('estimateSoon');
      if (range) return say('estimateRange', { low: number(range.low), high: number(range.high) });
      if (seconds < 180) return say('estimateFew');
      return say('estimateMinutes', { n: number(Math.ceil(seconds / 60)) });
    },
  };
}

/** @typedef {ReturnType<typeof wordsOf>} Words */

/** `12:05`, or `1:02:05`. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (hours > 0) return `${hours}:${two(minutes)}:${two(whole % 60)}`;
  return `${minutes}:${two(whole % 60)}`;
}

const en = {
  page: 'Waiting room',
  seconds: '{n} seconds',
  minute: '1 minute',
  minutes: '{n} minutes',
  hours: '{n} hours',

  estimateSoon: 'Entering soon',
  estimateFew: 'In about 2-3 minutes',
  estimateMinutes: 'In about {n} minutes',
  estimateRange: 'In about {low} to {high} minutes',
  estimateUnknown: "The wait can't be estimated yet",

  ahead: 'People ahead of you',
  aheadOne: 'Person ahead of you',
  people: '{n}',
  position: 'Your position',
  positionValue: '{n}',
  waiting: 'Waiting in all',
  progress: 'Your way to the front',
  movedNone: 'You have not moved up yet',
  movedOne: 'You have moved up 1 place',
  moved: 'You have moved up {n} places',
  announced: '{ahead} ahead of you. {estimate}.',

  badgeJoining: 'Joining',
  badgeWaiting: 'In line',
  badgeScheduled: 'Not open yet',
  badgePaused: 'Paused',
  badgeClosed: 'Closed',
  badgeFull: 'Full',
  badgeTurn: 'Your turn',
  badgeOver: 'Not in line',
  badgeElsewhere: 'Open elsewhere',
  badgeCarried: 'On another device',

  joiningHead: 'Taking your place in line',
  joiningText: 'This takes a moment. Your place counts as soon as it has been written down.',
  unreachableHead: "We can't reach the line",
  unreachableText: 'You are not in line yet. We keep trying.',
  unreachableKeptText: 'Your place is kept for {time} after you were last here. We keep trying.',
  unwrittenHead: 'Joining takes longer than usual',
  unwrittenText:
    'Your place could not be written down yet, so you are not in line yet. We keep trying; you need not do anything.',
  fullHead: 'The line is full right now',
  fullText: 'Nobody else can join for the moment. This page tries again by itself.',
  slowHead: 'A little slower, please',
  slowText: 'Too many attempts came from here. This page tries again by itself.',
  unknownHead: 'There is no such line',
  unknownText: 'Please check the address, or go back to the page that sent you here.',
  refusedHead: 'This page could not join the line',
  refusedText: 'Reloading may help, since the page may be out of date.',
  stoppedHead: 'The connection has ended',
  stoppedText: 'If you had a place, it is still kept for a while.',
  retryIn: 'Next attempt in {n} s.',
  retryNow: 'Trying now.',

  scheduledNotice: 'Not open yet. You already have your place.',
  scheduledAt: 'Opens on {time}',
  scheduledIn: 'Opens in {time}',
  pausedEstimate: 'Nobody is let in at the moment',
  pausedNotice: 'Admission is paused. Your place is kept.',
  closedEstimate: 'Nobody else will be let in',
  closedNotice: 'This line is closed.',
  reason: 'From the organiser: {reason}',
  rate_lowered: 'The wait is longer than we said: fewer people are let in a minute than before.',
  line_slowed: 'The wait is longer than we said: the line moves more slowly than before.',
  people_returned: 'The wait is longer than we said: people ahead of you have come back.',
  opening_moved: 'The opening has been moved to a later time.',
  staleNotice: 'These numbers may be a little old. Your place is safe.',
  unwrittenNotice: 'The line is having trouble at the moment. Your place is safe.',
  offlineNotice: 'You are offline. Your place is kept for {time} after the connection was lost.',
  lostNotice: 'The connection was lost. Your place is kept for {time}.',
  lostLongNotice:
    'The connection was lost longer ago than a place is kept ({time}). We keep trying; it may be gone.',
  leavingNotice: 'Giving up your place.',
  leavingLaterNotice: 'Giving up your place. This is done as soon as the connection is back.',

  turnHead: 'It is your turn',
  turnText: 'You are being taken in now.',
  turnLeft: 'Your turn is valid for another {time}.',
  turnOver: 'The time to enter is over.',

  endedLeftHead: 'You gave up your place',
  endedLeftText: 'You can join again, at the end of the line.',
  endedExpiredHead: 'Your place has expired',
  endedExpiredText:
    'You were away for too long, or your turn was not used in time. You can join again, at the end of the line.',
  endedRemovedHead: 'You were taken out of the line',
  endedRemovedText:
    'The organiser has removed this place. Please contact them if you think this is wrong.',
  endedClosedHead: 'The line is closed',
  endedClosedText: 'Nobody else will be let in. Thank you for waiting.',
  endedRedeemedHead: 'You have already been let in',
  endedRedeemedText:
    'Your turn has been used. If you are not inside any more, you can join again, at the end of the line.',
  endedOtherHead: 'Your place is gone',
  endedOtherText: 'You can join again, at the end of the line.',
  replacedHead: 'This place is open in another tab',
  replacedText: 'Two tabs are one place. It goes on over there, and nothing is lost.',
  carriedHead: 'This place is on another device now',
  carriedText:
    'It was carried to another browser or device and goes on there. Nothing is lost, and you can close this page.',

  again: 'Join again',
  here: 'Use it here',
  retry: 'Try again',
  reload: 'Reload',
  goIn: 'Enter now',
  goBackIn: 'Go to the page',

  leave: 'Give up my place',
  leaveAsk: 'Give up your place? Coming back means the end of the line.',
  leaveYes: 'Yes, give it up',
  leaveNo: 'Keep my place',
  keep: 'This page updates by itself. If you refresh it, close it or lose the connection, your place is kept for {time}.',
  keepPlain: 'This page updates by itself.',
  language: 'Language',

  enteringHead: 'One moment',
  enteringText: 'Your turn is being checked.',
  busyText: 'The check is not possible right now. Nothing is lost; we keep trying.',
  insideHead: 'You are in',
  insideText: 'Welcome. Your waiting is over.',
  insideUntil: 'You can stay until {time}.',
  usedHead: 'This turn has already been used',
  usedText:
    'A turn works once, and it was used in another tab or browser. If you are not inside, you can join the line again.',
  lateHead: 'Your turn has expired',
  lateText: 'It was not used in time. You can join the line again.',
  invalidHead: 'This turn is not valid',
  invalidText: 'It is not one for this line. You can join the line.',
  outsideHead: 'You are not inside',
  outsideText: 'The way in leads through the waiting room.',
  toWaiting: 'To the waiting room',
};

/** @type {typeof en} */
const ko = {
  page: '대기실',
  seconds: '{n}초',
  minute: '1분',
  minutes: '{n}분',
  hours: '{n}시간',

  estimateSoon: '곧 입장 가능합니다',
  estimateFew: '약 2-3분 후 입장 예정',
  estimateMinutes: '약 {n}분 후 입장 예정',
  estimateRange: '약 {low}~{high}분 후 입장 예정',
  estimateUnknown: '아직 대기 시간을 예상할 수 없습니다',

  ahead: '내 앞에',
  aheadOne: '내 앞에',
  people: '{n}명',
  position: '내 순번',
  positionValue: '{n}번째',
  waiting: '전체 대기 인원',
  progress: '입장까지 온 정도',
  movedNone: '아직 앞으로 이동하지 않았습니다',
  movedOne: '지금까지 1명 앞으로 왔습니다',
  moved: '지금까지 {n}명 앞으로 왔습니다',
  announced: '앞에 {ahead}. {estimate}.',

  badgeJoining: '연결 중',
  badgeWaiting: '대기 중',
  badgeScheduled: '오픈 전',
  badgePaused: '일시 중지',
  badgeClosed: '종료',
  badgeFull: '대기열 가득 참',
  badgeTurn: '입장 차례',
  badgeOver: '대기 중 아님',
  badgeElsewhere: '다른 탭에서 사용 중',
  badgeCarried: '다른 기기에서 사용 중',

  joiningHead: '대기열에 들어가는 중입니다',
  joiningText: '잠시만 기다려 주세요. 순번이 기록되는 즉시 자리가 인정됩니다.',
  unreachableHead: '대기열에 연결할 수 없습니다',
  unreachableText: '아직 대기열에 들어가지 못했습니다. 계속 시도하고 있습니다.',
  unreachableKeptText: '마지막 접속 후 {time} 동안 자리가 유지됩니다. 계속 시도하고 있습니다.',
  unwrittenHead: '평소보다 오래 걸리고 있습니다',
  unwrittenText:
    '순번을 아직 기록하지 못해 대기열에 들어가지 못했습니다. 계속 시도하고 있으니 그대로 기다려 주세요.',
  fullHead: '지금은 대기열이 가득 찼습니다',
  fullText: '잠시 동안 더 들어갈 수 없습니다. 이 화면이 자동으로 다시 시도합니다.',
  slowHead: '잠시 후 다시 시도합니다',
  slowText: '이 네트워크에서 요청이 너무 많았습니다. 이 화면이 자동으로 다시 시도합니다.',
  unknownHead: '없는 대기열입니다',
  unknownText: '주소를 확인하시거나 이전 페이지로 돌아가 주세요.',
  refusedHead: '대기열에 들어갈 수 없습니다',
  refusedText: '화면이 오래되었을 수 있습니다. 새로고침해 주세요.',
  stoppedHead: '연결이 종료되었습니다',
  stoppedText: '자리가 있었다면 한동안 그대로 유지됩니다.',
  retryIn: '{n}초 후 다시 시도합니다.',
  retryNow: '다시 시도하는 중입니다.',

  scheduledNotice: '아직 열리지 않았습니다. 순번은 이미 확보되었습니다.',
  scheduledAt: '{time} 오픈',
  scheduledIn: '오픈까지 {time}',
  pausedEstimate: '지금은 입장이 멈춰 있습니다',
  pausedNotice: '입장이 일시 중지되었습니다. 자리는 그대로 유지됩니다.',
  closedEstimate: '더 이상 입장하지 않습니다',
  closedNotice: '이 대기열은 종료되었습니다.',
  reason: '주최 측 안내: {reason}',
  rate_lowered: '안내해 드린 것보다 더 기다리셔야 합니다. 1분당 입장 인원이 줄었습니다.',
  line_slowed: '안내해 드린 것보다 더 기다리셔야 합니다. 줄이 전보다 천천히 줄어들고 있습니다.',
  people_returned: '안내해 드린 것보다 더 기다리셔야 합니다. 앞에 계신 분들이 돌아왔습니다.',
  opening_moved: '오픈 시간이 늦춰졌습니다.',
  staleNotice: '표시된 숫자가 조금 전 것일 수 있습니다. 자리는 안전합니다.',
  unwrittenNotice: '대기열에 일시적인 문제가 있습니다. 자리는 안전합니다.',
  offlineNotice: '인터넷 연결이 끊겼습니다. 끊긴 뒤 {time} 동안 자리가 유지됩니다.',
  lostNotice: '연결이 끊겼습니다. {time} 동안 자리가 유지됩니다.',
  lostLongNotice:
    '연결이 끊긴 지 자리 유지 시간({time})이 지났습니다. 계속 시도하지만 자리가 사라졌을 수 있습니다.',
  leavingNotice: '대기를 포기하는 중입니다.',
  leavingLaterNotice: '대기를 포기하는 중입니다. 연결되는 대로 처리됩니다.',

  turnHead: '입장할 차례입니다',
  turnText: '지금 입장합니다.',
  turnLeft: '남은 입장 시간은 {time}입니다.',
  turnOver: '입장 시간이 지났습니다.',

  endedLeftHead: '대기를 포기했습니다',
  endedLeftText: '다시 대기하면 맨 뒤부터 시작합니다.',
  endedExpiredHead: '자리가 만료되었습니다',
  endedExpiredText:
    '자리를 오래 비웠거나 입장 시간 안에 입장하지 않았습니다. 다시 대기하면 맨 뒤부터 시작합니다.',
  endedRemovedHead: '대기열에서 제외되었습니다',
  endedRemovedText: '주최 측이 이 자리를 제외했습니다. 착오라고 생각되면 주최 측에 문의해 주세요.',
  endedClosedHead: '대기열이 종료되었습니다',
  endedClosedText: '더 이상 입장하지 않습니다. 기다려 주셔서 감사합니다.',
  endedRedeemedHead: '이미 입장했습니다',
  endedRedeemedText:
    '입장 차례를 이미 사용했습니다. 안에 있지 않다면 다시 대기할 수 있으며, 맨 뒤부터 시작합니다.',
  endedOtherHead: '자리가 없어졌습니다',
  endedOtherText: '다시 대기하면 맨 뒤부터 시작합니다.',
  replacedHead: '다른 탭에서 이 자리를 사용 중입니다',
  replacedText: '탭이 여러 개여도 자리는 하나입니다. 그 탭에서 계속되며 잃는 것은 없습니다.',
  carriedHead: '이 자리는 다른 기기로 옮겨졌습니다',
  carriedText: '다른 브라우저나 기기에서 계속되며 잃는 것은 없습니다. 이 화면은 닫으셔도 됩니다.',

  again: '다시 대기하기',
  here: '여기서 사용하기',
  retry: '다시 시도',
  reload: '새로고침',
  goIn: '지금 입장하기',
  goBackIn: '페이지로 이동',

  leave: '대기 포기하기',
  leaveAsk: '대기를 포기할까요? 다시 오면 맨 뒤부터 기다려야 합니다.',
  leaveYes: '네, 포기합니다',
  leaveNo: '계속 기다리기',
  keep: '이 화면은 자동으로 갱신됩니다. 새로고침하거나 창을 닫거나 연결이 끊겨도 {time} 동안 자리가 유지됩니다.',
  keepPlain: '이 화면은 자동으로 갱신됩니다.',
  language: '언어',

  enteringHead: '잠시만 기다려 주세요',
  enteringText: '입장권을 확인하고 있습니다.',
  busyText: '지금은 확인할 수 없습니다. 잃는 것은 없으며 계속 시도하고 있습니다.',
  insideHead: '입장했습니다',
  insideText: '환영합니다. 대기가 끝났습니다.',
  insideUntil: '{time}까지 이용할 수 있습니다.',
  usedHead: '이미 사용한 입장권입니다',
  usedText:
    '입장권은 한 번만 쓸 수 있으며, 다른 탭이나 브라우저에서 사용되었습니다. 안에 있지 않다면 다시 대기해 주세요.',
  lateHead: '입장 시간이 지났습니다',
  lateText: '시간 안에 입장하지 않았습니다. 다시 대기해 주세요.',
  invalidHead: '유효하지 않은 입장권입니다',
  invalidText: '이 대기열의 입장권이 아닙니다. 대기열에 들어가 주세요.',
  outsideHead: '아직 입장하지 않았습니다',
  outsideText: '대기실을 거쳐야 입장할 수 있습니다.',
  toWaiting: '대기실로 가기',
};

const TEXTS = { ko, en };
