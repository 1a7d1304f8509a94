/** A moment, by two clocks: the monotonic one stands still on some systems while they sleep, and the other can be set.
 * @typedef {{ monotonic: number, wall: number }} Moment */

/** @returns {Moment} */
export const moment = () => ({ monotonic: performance.now(), wall: Date.now() });

/** How long ago it was at most, in milliseconds: a lease is rather believed to be over too early than too late.
 * @param {Moment} then */
export const since = (then) => Math.max(performance.now() - then.monotonic, Date.now() - then.wall);
