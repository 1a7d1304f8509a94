// The server's wall clock, as far as it is known here. The clock of this machine may be wrong: it is asked nothing.

let offset = Date.now() - performance.now();

/** `wall` is what the server's clock showed (milliseconds since 1970) at `at` (by `performance.now()`). */
export function learn(wall, at) {
  if (Number.isFinite(wall)) offset = wall - at;
}

/** The same to the second, as the head of an answer has it: a clock here that agrees with it is the better one. */
export function learnRoughly(wall, at) {
  if (Math.abs(wall + 500 - at - offset) > 1000) learn(wall + 500, at);
}

/** What the server's clock shows now. */
export const now = () => performance.now() + offset;

/** A lock says what time it is: when it ends, and in how long. */
export function learnFrom(lock, at) {
  if (lock) learn(Date.parse(lock.expires_at) - lock.expires_in_ms, at);
}
