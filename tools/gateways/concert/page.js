/**
 * The seats, as they are now. The other half of the defence is here: whoever loads this page and then
 * has no pass any more is led to the waiting page, and back here when it is their turn.
 */

const REFRESH_MS = 5_000;
const RETRY_SECONDS = 3;

const seats = document.querySelector('#seats');
const notice = document.querySelector('#notice');

await refresh();

async function refresh() {
  const answer = await call('GET', '/api/seats');
  if (answer.ok) {
    paint(answer.body);
    setTimeout(refresh, REFRESH_MS);
  } else if (!answer.isLeaving) {
    notice.textContent = 'The seats can’t be shown at the moment. Trying again…';
    setTimeout(refresh, answer.retrySeconds * 1000);
  }
}

async function take(seat) {
  const answer = await call('POST', `/api/seats/${seat}`);
  if (answer.ok) notice.textContent = `${seat} is yours.`;
  else if (answer.body.code === 'seat_taken') notice.textContent = `${seat} has just been taken.`;
  else if (!answer.isLeaving) notice.textContent = 'That did not work. Please try again.';
  const now = await call('GET', '/api/seats');
  if (now.ok) paint(now.body);
}

function paint(now) {
  document.querySelector('#visitor').textContent = now.visitor ? `Visitor ${now.visitor}` : '';
  seats.replaceChildren(...now.seats.map(button));
}

function button({ seat, taken, mine }) {
  const made = document.createElement('button');
  made.textContent = seat;
  made.dataset.is = mine ? 'mine' : taken ? 'taken' : 'free';
  made.disabled = taken;
  made.addEventListener('click', () => take(seat));
  return made;
}

async function call(method, path) {
  let response;
  try {
    response = await fetch(path, { method, headers: { Accept: 'application/json' } });
  } catch {
    return { ok: false, body: {}, retrySeconds: RETRY_SECONDS };
  }
  const body = await response.json().catch(() => ({}));
  const way = response.headers.get('Location') ?? body.waiting;
  const isLeaving = response.status === 403 && Boolean(way);
  if (isLeaving) goAndWait(way);
  const retrySeconds = Number(response.headers.get('Retry-After')) || RETRY_SECONDS;
  return { ok: response.ok, body, isLeaving, retrySeconds };
}

/** To the waiting page, which leads back to where we are. */
function goAndWait(way) {
  const waiting = new URL(way, location.href);
  const entry = new URL('/anteroom/enter', location.href);
  entry.searchParams.set('to', location.pathname);
  waiting.searchParams.set('target', entry.href);
  location.replace(waiting);
}
