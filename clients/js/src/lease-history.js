import { ENDINGS } from './snapshot.js';

/** The earlier leases of this tab. */
export class LeaseHistory {
  /** Fence of the last lease. */ fence = 0;
  /** Newest fence that an event other than expiry has ended. */ #ended = 0;
  /** Whether nobody else is known to have held the lock since. */ isIntact = false;

  /** Records a new lease. Returns whether somebody else may have held the lock since the last one.
   * @param {import('./api.js').Grant} grant @param {boolean} isBack whether nobody held it in between */
  begin({ lock: { fence }, outcome }, isBack) {
    const isNew = !isBack && !(this.isIntact && fence === this.fence && outcome === 'reclaimed');
    this.fence = fence;
    this.isIntact = true;
    return isNew;
  }

  /** Records the end of a lease.
   * @param {string} type @param {number | null | undefined} fence */
  onEvent(type, fence) {
    if (fence && ENDINGS[type] && type !== 'lock.expired') this.#ended = Math.max(this.#ended, fence);
  }

  /** Whether an event ended this lease. It may arrive before the answer that grants the lease.
   * @param {number} fence */
  hasEnded(fence) {
    return fence <= this.#ended;
  }
}
