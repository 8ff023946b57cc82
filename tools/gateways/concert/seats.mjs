/** The seats of one evening, in memory. */

const ROWS = ['A', 'B', 'C', 'D'];
const SEATS_A_ROW = 8;

/** By seat, whoever has it; undefined while it is free. */
const holders = new Map();
for (const row of ROWS) {
  for (let number = 1; number <= SEATS_A_ROW; number += 1) {
    holders.set(`${row}${number}`, undefined);
  }
}

/**
 * Answers a call of the API: status and body. A visitor is a name, or null for those who were let in
 * without a pass: they are nobody in particular, and no seat is theirs.
 */
export function answer(method, path, visitor) {
  if (path === '/api/seats' && method === 'GET') {
    const seats = [...holders].map(([seat, holder]) => seen(seat, holder, visitor));
    return { status: 200, body: { visitor, seats } };
  }
  const seat = /^\/api\/seats\/([A-Z][0-9]+)$/.exec(path)?.[1];
  if (!holders.has(seat)) return problem(404, 'unknown_seat', 'There is no such seat.');
  if (method !== 'POST') return problem(405, 'bad_request', 'A seat is taken with POST.');
  const before = seen(seat, holders.get(seat), visitor);
  if (before.taken && !before.mine) return problem(409, 'seat_taken', 'Somebody has this seat.');
  holders.set(seat, visitor);
  return { status: before.mine ? 200 : 201, body: seen(seat, visitor, visitor) };
}

function seen(seat, holder, visitor) {
  return { seat, taken: holder !== undefined, mine: visitor !== null && holder === visitor };
}

/** An error as RFC 9457 has it. */
export function problem(status, code, detail, more = {}) {
  return { status, body: { type: 'about:blank', status, code, detail, ...more } };
}
