import { ENDINGS } from './snapshot.js';

/** What this tab knows of the leases that it had. */
export class LeaseHistory {
  /** The fence of the lease that this tab had last. */ fence = 0;
  /** The newest fence that is known to have been ended by somebody. Such a lease does not come back. */ #ended = 0;

  /** Whether nobody else is known to have had the lock since. */ isIntact = false;

  /** A lease begins. Returns whether somebody else may have had the lock since the last one.
   * @param {import('./api.js').Grant} grant @param {boolean} isBack nobody had it in between */
  begin({ lock: { fence }, outcome }, isBack) {
    const isNew = !isBack && !(this.isIntact && fence === this.fence && outcome === 'reclaimed');
    this.fence = fence;
    this.isIntact = true;
    return isNew;
  }

  /** An event ended a lease.
   * @param {string} type @param {number | null | undefined} fence */
  hear(type, fence) {
    if (fence && ENDINGS[type] && type !== 'lock.expired') this.#ended = Math.max(this.#ended, fence);
  }

  /** Whether a lease was ended before the answer that granted it came.
   * @param {number} fence */
  hasEnded(fence) {
    return fence <= this.#ended;
  }
}
