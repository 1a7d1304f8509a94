/** When something was seen first, by the monotonic clock. @type {WeakMap<object, number>} */
const seen = new WeakMap();

/** For how long it has been known, in milliseconds.
 * @param {object} what */
export function age(what) {
  const now = performance.now();
  const then = seen.get(what) ?? now;
  seen.set(what, then);
  return now - then;
}

/** How long ago the holder did something, in milliseconds: by the server's clock up to when it said so, which is as long
 * before the end as it says, and by our own since then.
 * @param {import('./client.js').Lock} lock */
export const idleMs = (lock) =>
  Math.max(0, Date.parse(lock.expires_at) - lock.expires_in_ms - Date.parse(lock.last_active_at)) + age(lock);

/** How long something lasts. No line breaks between the number and its unit.
 * @param {number} ms @param {{ minutes?: string, hours?: string }} [units] */
export function duration(ms, { minutes = 'min', hours = 'h' } = {}) {
  const seconds = Math.round(Math.max(0, ms) / 1000);
  if (seconds < 60) return `${seconds}\u00a0s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)}\u00a0${minutes}` : `${Math.round(seconds / 3600)}\u00a0${hours}`;
}

/** The time of day; with the day, if that is another one.
 * @param {number} at milliseconds since 1970 @param {string} language */
export function clockTime(at, language) {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(language, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23', ...(!isToday && { month: 'short', day: 'numeric' }) });
}
