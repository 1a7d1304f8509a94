/** When an object was first passed to `age`, on the monotonic clock. @type {WeakMap<object, number>} */
const seen = new WeakMap();

/** Milliseconds since this object was first passed in.
 * @param {object} what */
export function age(what) {
  const now = performance.now();
  const then = seen.get(what) ?? now;
  seen.set(what, then);
  return now - then;
}

/** Milliseconds since the holder was active: on the server's clock until its answer (`expires_at` less `expires_in_ms`), and on the
 * local clock since then.
 * @param {import('./client.js').Lock} lock */
export const idleMs = (lock) =>
  Math.max(0, Date.parse(lock.expires_at) - lock.expires_in_ms - Date.parse(lock.last_active_at)) + age(lock);

/** Formats a duration, with a no-break space before the unit.
 * @param {number} ms @param {{ minutes?: string, hours?: string }} [units] */
export function duration(ms, { minutes = 'min', hours = 'h' } = {}) {
  const seconds = Math.round(Math.max(0, ms) / 1000);
  if (seconds < 60) return `${seconds}\u00a0s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)}\u00a0${minutes}` : `${Math.round(seconds / 3600)}\u00a0${hours}`;
}

/** Formats the time of day, with the date unless it is today.
 * @param {number} at milliseconds since 1970 @param {string} language */
export function clockTime(at, language) {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(language, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23', ...(!isToday && { month: 'short', day: 'numeric' }) });
}
