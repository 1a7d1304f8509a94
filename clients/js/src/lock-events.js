/** The events of a lock, by type, with their `detail`: `change` after every change of the view; `held` when this tab has the lock, where
 * `isNew` is false if the same lease came back and nobody else can have changed anything; `lost`; `knock` when somebody asks for the
 * lock; `declined` when the holder keeps it, with the time until one can ask again (milliseconds); `draft` when what was typed and not saved was found, or the person has chosen.
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

/** An `EventTarget` that knows the types of its events. */
export const LockEventTarget = /** @type {new () => LockEventTarget} */ (EventTarget);
