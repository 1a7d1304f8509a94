// An estimate of the server's wall clock. The clock of this machine may be wrong, so it is not used.

let offset = Date.now() - performance.now();

/** `wall`: the server's time (milliseconds since 1970). `at`: when that was read, by `performance.now()`. */
export function learn(wall, at) {
  if (Number.isFinite(wall)) offset = wall - at;
}

/** The `Date` header has a resolution of one second. An estimate that agrees with it is more precise, and is kept. */
export function learnRoughly(wall, at) {
  if (Math.abs(wall + 500 - at - offset) > 1000) learn(wall + 500, at);
}

/** The server's time now. */
export const now = () => performance.now() + offset;

/** A lock tells the time: `expires_at` less `expires_in_ms`. */
export function learnFrom(lock, at) {
  if (lock) learn(Date.parse(lock.expires_at) - lock.expires_in_ms, at);
}
