/** The `detail` of each event. `change`: the view has changed. `held`: this tab has acquired the lock; `isNew` is false if the same lease
 * came back, so that nobody else can have changed anything. `lost`: this tab has lost the lock. `knock`: a user asks for the lock.
 * `declined`: the holder keeps the lock; milliseconds until the next request. `draft`: unsaved text was found, or the person has chosen.
 * @typedef {{
 *   change: import('./snapshot.js').View, held: { fence: number, isNew: boolean }, lost: import('./snapshot.js').Loss,
 *   knock: import('./client.js').Knock, declined: { againInMs: number },
 *   draft: import('./draft.js').Found | null,
 * }} LockEvents */
/** @template {keyof LockEvents} K
 * @typedef {((event: CustomEvent<LockEvents[K]>) => unknown) | { handleEvent(event: CustomEvent<LockEvents[K]>): unknown } | null} Listener */
/** @typedef {{
 *   addEventListener<K extends keyof LockEvents>(type: K, listener: Listener<K>, options?: AddEventListenerOptions | boolean): void,
 *   addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: AddEventListenerOptions | boolean): void,
 *   removeEventListener<K extends keyof LockEvents>(type: K, listener: Listener<K>, options?: EventListenerOptions | boolean): void,
 *   removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: EventListenerOptions | boolean): void,
 *   dispatchEvent(event: Event): boolean,
 * }} LockEventTarget */

/** An `EventTarget` with typed events. */
export const LockEventTarget = /** @type {new () => LockEventTarget} */ (EventTarget);
