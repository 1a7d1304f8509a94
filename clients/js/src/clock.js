/** A point in time on two clocks. The monotonic clock stops on some systems while they sleep; the wall clock can be set.
 * @typedef {{ monotonic: number, wall: number }} Moment */

/** @returns {Moment} */
export const moment = () => ({ monotonic: performance.now(), wall: Date.now() });

/** Time since then in milliseconds, by the clock that says more: a lease may end too early here, but not too late.
 * @param {Moment} then */
export const since = (then) => Math.max(performance.now() - then.monotonic, Date.now() - then.wall);
