// @ts-check
/** Tells screen readers what changed, seldom enough to be bearable. */

const PAUSE_MS = 10_000;
/** Numbers change all the time; what kind of situation one is in does not. */
const PAUSE_NUMBERS_MS = 30_000;

/**
 * @param {HTMLElement} region with `role=status`
 * @returns {(kind: string, text: string) => void} to be called at any time, as often as one likes;
 *   `kind` says what the text is about: the same kind again is only a new number
 */
export function announcer(region) {
  let saidAt = -Infinity;
  let saidKind = '';
  return (kind, text) => {
    const now = performance.now();
    const pause = kind === saidKind ? PAUSE_NUMBERS_MS : PAUSE_MS;
    if (region.textContent === text || now - saidAt < pause) return;
    region.textContent = text;
    saidAt = now;
    saidKind = kind;
  };
}
