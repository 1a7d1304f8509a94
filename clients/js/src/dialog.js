import { Alert, askToNotify } from './dialog-alert.js';
import { isSessionHere, placeInQueue } from './dialog-lookup.js';
import { asking, notice } from './dialog-panels.js';
import { STYLE } from './dialog-style.js';
import { Surface, element, focusedIn } from './dialog-surface.js';
import { TEXTS } from './dialog-texts.js';
import { age } from './dialog-time.js';
import { Refusal } from './refusal.js';

export { TEXTS };

/** @typedef {import('./lock.js').View} View */
/** @typedef {import('./dialog-texts.js').Texts} Texts */
/** Some of them. @typedef {Partial<Omit<Texts, 'reasons'>> & { reasons?: Partial<Texts['reasons']> }} SomeTexts */

/** The other languages that it speaks. @type {Record<string, (() => Promise<{ default: Texts }>) | undefined>} */
const LANGUAGES = {
  de: () => import('./dialog-de.js'),
  es: () => import('./dialog-es.js'),
  fr: () => import('./dialog-fr.js'),
};
/** While it is open, who has it is read again after so long: heartbeats are no events (milliseconds). */
const LOOK_AGAIN_MS = 10_000;
/** A connection that is back so soon, or a lease, is not worth a word (milliseconds). */
const QUIET_MS = 1_500;
// Where there is no page, it can be imported all the same.
const Base = globalThis.HTMLElement ?? /** @type {typeof HTMLElement} */ (class {});

/** `<lockhouse-dialog>`: tells a person who is editing, and lets them choose. Give it a `lock`, and call `edit()` when the
 * person wants to edit; it opens by itself when the lock is lost, and shows a notice when somebody asks for it. With the
 * attribute `inline` it covers its positioned ancestor only, and not the page. While somebody asks, the tab's title says so; with the
 * attributes `notify` and `sound` a notification and a sound do, too, while the page is not seen.
 *
 * Events: `readonly` (the person chose to read only), `open`, `close`. */
export class LockhouseDialog extends Base {
  /** @type {import('./lock.js').WorkspaceLock | null} */ #lock = null;
  /** @type {Texts} */ #texts = TEXTS;
  /** What the page says otherwise. @type {SomeTexts} */ #own = {};
  /** What is said in the language. @type {Texts} */ #spoken = TEXTS;
  #language = 'en';
  #isOpen = false;
  /** What the person has begun to choose, and the fence of the lock that they were shown. */
  #step = { is: /** @type {import('./dialog-panels.js').Step} */ (''), fence: 0 };
  /** The fence of the lock that may not be taken over. */ #refused = 0;
  #hasDeclined = false;
  #isBusy = false;
  #problem = '';
  /** @type {View['loss']} */ #told = null;
  /** Whoever had the focus before. @type {HTMLElement | null} */ #before = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #clock;
  #listening = new AbortController();
  /** @type {HTMLElement} */ #veil;
  /** @type {HTMLDialogElement} */ #dialog;
  /** What is asked of somebody who wants to edit. @type {Surface} */ #main;
  /** What is told beside the work. @type {Surface} */ #notice;
  #lookedAt = 0;
  #alert = new Alert();
  /** Whether the session that has it is of this browser, and which that is. */ #near = { session: '', is: false };
  /** @type {import('./dialog-panels.js').There['place']} */ #place = null;
  /** When the holder of the lease `fence` can be asked again, by the monotonic clock. */ #askAgain = { fence: 0, at: 0 };
  #waitingSeen = 0;
  /** Since when there is no connection. */ #offlineSince = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    this.#veil = element('div', { class: 'veil', part: 'veil', hidden: '' });
    this.#dialog = element('dialog', { part: 'dialog' });
    const section = element('section', { part: 'notice', hidden: '' });
    const inside = element('div', { class: 'heard', role: 'status' });
    const outside = element('div', { class: 'heard', role: 'status' });
    this.#main = new Surface(this.#dialog, 'dialog', inside);
    this.#notice = new Surface(section, 'notice', outside);
    // What is outside of a dialog is not heard while it is open.
    this.#dialog.append(inside);
    root.append(this.#veil, this.#dialog, outside, section);
    this.#main.title.autofocus = true;
    this.#dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      this.#escape();
    });
    // A browser lets nobody hold it open for ever.
    // The event comes later: it may be open again by then.
    this.#dialog.addEventListener('close', () => this.#isOpen && !this.#dialog.open && this.#readOnly());
    this.#dialog.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || !this.hasAttribute('inline') || event.isComposing) return;
      event.preventDefault();
      this.#escape();
    });
  }

  /** What it is about. */
  get lock() {
    return this.#lock;
  }

  set lock(lock) {
    if (lock === this.#lock) return;
    this.#ignore();
    this.close();
    this.#lock = lock;
    this.#told = lock?.view.loss ?? null;
    this.#refused = 0;
    this.#problem = '';
    this.#hasDeclined = false;
    this.#askAgain = { fence: 0, at: 0 };
    this.#place = null;
    this.#waitingSeen = 0;
    this.#offlineSince = 0;
    if (this.isConnected) this.#listen();
  }

  /** What it says; what is missing is said in English. @type {SomeTexts} */
  get texts() {
    return this.#texts;
  }

  set texts(texts) {
    this.#own = texts;
    this.#say();
  }

  #say() {
    const [spoken, own] = [this.#spoken, this.#own];
    this.#texts = { ...spoken, ...own, reasons: { ...spoken.reasons, ...own?.reasons } };
    this.#render();
  }

  static observedAttributes = ['lang'];

  attributeChangedCallback() {
    if (this.isConnected) this.#speak();
  }

  /** Speaks the language of the attribute `lang`, or of what it stands in; of `de-AT` the `de`. */
  async #speak() {
    const lang = this.closest('[lang]')?.getAttribute('lang')?.toLowerCase().split('-')[0] ?? '';
    const load = Object.hasOwn(LANGUAGES, lang) ? LANGUAGES[lang] : undefined;
    const language = load ? lang : 'en';
    if (language === this.#language) return;
    this.#language = language;
    // Where it cannot be loaded, it is English.
    const spoken = (await load?.().catch(() => undefined))?.default ?? TEXTS;
    if (language !== this.#language) return;
    this.#spoken = spoken;
    for (const { root } of [this.#main, this.#notice]) root.lang = spoken === TEXTS ? 'en' : language;
    this.#say();
  }

  get open() {
    return this.#isOpen;
  }

  /** The person wants to edit: locks it if that is possible, and otherwise shows why not.
   * @returns {Promise<import('./lock.js').State>} */
  async edit() {
    const lock = this.#lock;
    if (!lock) return 'unknown';
    if (this.hasAttribute('notify')) askToNotify();
    const late = setTimeout(() => lock === this.#lock && this.show(), QUIET_MS);
    try {
      await this.#do(() => lock.acquire());
    } finally {
      clearTimeout(late);
    }
    if (lock === this.#lock && lock.state !== 'held') this.show();
    return lock.state;
  }

  /** Shows what there is to choose, unless this tab has the lock. */
  show() {
    this.#show(true);
  }

  /** @param {boolean} isAsked the person wants to see it */
  #show(isAsked) {
    if (this.#isOpen || !this.isConnected || !this.#lock || this.#lock.state === 'held') return;
    this.#isOpen = true;
    this.#render();
    const before = focusedIn(document);
    if (this.hasAttribute('inline')) {
      this.#veil.hidden = false;
      this.#dialog.setAttribute('open', '');
      this.#before = null;
      // Unasked it takes the focus from what it covers only.
      if (isAsked || before === document.body || this.parentElement?.contains(document.activeElement)) {
        this.#before = before;
        this.#main.focus();
      }
    } else {
      this.#dialog.showModal();
    }
    this.#lookAgain();
    this.dispatchEvent(new Event('open'));
  }

  /** Closes it; the person has chosen nothing. */
  close() {
    if (!this.#isOpen) return;
    const hadFocus = this.shadowRoot?.activeElement;
    this.#isOpen = false;
    this.#step.is = '';
    this.#problem = '';
    this.#hasDeclined = false;
    this.#veil.hidden = true;
    this.#dialog.close();
    if (hadFocus) this.#before?.focus();
    this.#before = null;
    this.#main.hide();
    this.#render();
    this.dispatchEvent(new Event('close'));
  }

  connectedCallback() {
    this.#speak();
    this.#listen();
  }

  disconnectedCallback() {
    this.#ignore();
    this.close();
    this.#render();
  }

  #listen() {
    const lock = this.#lock;
    if (!lock) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    lock.addEventListener('change', () => this.#changed(lock.view), { signal });
    const declined = (/** @type {CustomEvent<{ againInMs: number }>} */ { detail }) => {
      this.#declined(detail.againInMs);
      this.#show(false);
      this.#render();
    };
    lock.addEventListener('declined', declined, { signal });
    lock.addEventListener('draft', () => this.#render(), { signal });
    this.#clock = setInterval(() => this.#tick(), 1_000);
    this.#changed(lock.view);
  }

  /** The holder keeps it. @param {number} againInMs until they can be asked again */
  #declined(againInMs) {
    this.#hasDeclined = true;
    this.#askAgain = { fence: this.#lock?.view.holder?.fence ?? 0, at: performance.now() + againInMs };
  }

  #ignore() {
    this.#listening.abort();
    clearInterval(this.#clock);
  }

  /** @param {View} view */
  #changed({ state, loss, holder, knock, isConnected, isOtherTab, waiting }) {
    // From now on it is known.
    for (const what of [holder, holder?.knock, knock]) if (what) age(what);
    if (isConnected) this.#offlineSince = 0;
    else this.#offlineSince ||= performance.now();
    if (state !== 'held-by-other' && state !== 'waiting') this.#hasDeclined = false;
    if (state !== 'waiting') this.#place = null;
    else if (!this.#place) this.#findPlace();
    // Who is asked knows that somebody waits.
    if (state !== 'held') this.#waitingSeen = 0;
    else if (knock) this.#waitingSeen = Math.max(this.#waitingSeen, waiting, 1);
    if (isOtherTab && holder?.session_id) this.#findNear(holder.session_id);
    // What the person was about to do was about somebody else.
    if ((state !== 'held-by-other' && state !== 'lost') || holder?.fence !== this.#step.fence) this.#step.is = '';
    if (state === 'held') this.close();
    const isNews = loss && loss !== this.#told && (state === 'lost' || state === 'held-by-other');
    if (!loss || isNews) this.#told = loss;
    // What went wrong before is about a lock that is gone.
    if (isNews) this.#problem = '';
    this.#render();
    // Whoever is handing it over knows, though the event may come before the answer.
    if (!isNews || (loss.reason === 'handed_over' && this.#isBusy)) return;
    if (loss.comesBack) setTimeout(() => this.#lock?.view.loss === loss && this.#show(false), QUIET_MS);
    else this.#show(false);
  }

  #tick() {
    this.#render();
    if (!this.#isOpen) return;
    // Its request to wait may have come after the question.
    if (this.#lock?.view.state === 'waiting' && !this.#place?.at && !document.hidden) this.#findPlace();
    if (performance.now() - this.#lookedAt > LOOK_AGAIN_MS && !document.hidden) this.#lookAgain();
  }

  #lookAgain() {
    this.#lookedAt = performance.now();
    if (this.#lock?.view.state === 'waiting') this.#findPlace();
    this.#lock?.refresh().catch(() => {});
  }

  /** Whether the tab that has it is one of this browser: then it holds its name. Where that cannot be found out, it may be anywhere.
   * @param {string} session */
  async #findNear(session) {
    if (session === this.#near.session) return;
    this.#near = { session, is: false };
    if (!(await isSessionHere(session)) || this.#near.session !== session) return;
    this.#near.is = true;
    this.#render();
  }

  async #findPlace() {
    const lock = this.#lock;
    if (!lock) return;
    this.#place ??= { at: 0, of: 0 };
    const place = await placeInQueue(lock);
    if (!place || lock !== this.#lock || lock.view.state !== 'waiting') return;
    this.#place = place;
    this.#render();
  }

  /** Does what was chosen, and says how it went if it did not go well.
   * @param {() => unknown} act */
  async #do(act) {
    const { view } = this.#lock ?? {};
    this.#problem = '';
    if (view?.state !== 'waiting') this.#hasDeclined = false;
    this.#isBusy = true;
    this.#render();
    try {
      await act();
    } catch (error) {
      if (error instanceof Refusal && error.code === 'knock_too_soon') {
        this.#declined(error.problem.again_in_ms ?? error.retryAfterMs ?? 0);
        this.#step.is = '';
      } else if (error instanceof Refusal && error.code === 'takeover_forbidden') {
        this.#refused = view?.holder?.fence ?? 0;
        this.#step.is = '';
      } else {
        this.#problem = this.#explain(error);
        if (view?.state !== 'held') this.#show(false);
      }
    }
    this.#isBusy = false;
    this.#render();
  }

  /** @param {unknown} error */
  #explain(error) {
    if (error instanceof Refusal) return this.#texts.refused(error);
    // What the app says itself, when it could not save before the lock goes. The browser's own words are no help.
    const isApps = error instanceof Error && !(error instanceof TypeError) && !(error instanceof DOMException) && error.message;
    return isApps || this.#texts.notReached;
  }

  /** @param {import('./dialog-panels.js').Step} step */
  #begin(step) {
    this.#step = { is: step, fence: this.#lock?.view.holder?.fence ?? 0 };
    this.#problem = '';
    this.#hasDeclined = false;
    this.#render();
  }

  #escape() {
    if (this.#step.is) this.#begin('');
    else this.#readOnly();
  }

  #readOnly() {
    const lock = this.#lock;
    this.close();
    // The person knows now that it was lost. Whoever waits goes on waiting.
    if (lock?.state === 'lost') lock.release().catch(() => {});
    this.dispatchEvent(new Event('readonly'));
  }

  #render() {
    const lock = this.isConnected ? this.#lock : null;
    const there = lock && this.#there(lock);
    if (this.#isOpen && there) this.#main.show(asking(there), this.#isBusy && lock.view.state !== 'waiting');
    const panel = there && notice(there);
    const isAsked = panel && lock?.view.state === 'held' && lock.view.knock;
    this.#alert.tell(isAsked ? panel.title : '', { notifies: this.hasAttribute('notify'), sounds: this.hasAttribute('sound') });
    const { root } = this.#notice;
    if (panel) this.#notice.show(panel, this.#isBusy && lock?.view.state === 'held');
    else this.#notice.hide();
    if (root.hidden === !panel) return;
    root.hidden = !panel;
    // Above all that the page has.
    root.popover = this.hasAttribute('inline') ? null : 'manual';
    if (panel && root.popover) root.showPopover();
    else if (root.matches(':popover-open')) root.hidePopover();
  }

  /** @param {import('./lock.js').WorkspaceLock} lock @returns {import('./dialog-panels.js').There} */
  #there(lock) {
    return {
      lock,
      texts: this.#texts,
      isOpen: this.#isOpen,
      isOffline: this.#offlineSince > 0 && performance.now() - this.#offlineSince > QUIET_MS,
      isRefused: !lock.view.mayTakeOver || (Boolean(this.#refused) && lock.view.holder?.fence === this.#refused),
      // Who has asked again has no answer yet.
      hasDeclined: this.#hasDeclined && !lock.view.hasAsked,
      isNear: this.#near.is && this.#near.session === lock.view.holder?.session_id,
      place: this.#place?.at ? this.#place : null,
      askAgainInMs: lock.view.holder?.fence === this.#askAgain.fence ? Math.max(0, this.#askAgain.at - performance.now()) : 0,
      waitingSeen: this.#waitingSeen,
      seeWaiting: () => {
        this.#waitingSeen = lock.view.waiting;
        this.#render();
      },
      problem: this.#problem,
      step: this.#step.is,
      begin: (step) => this.#begin(step),
      act: (act) => this.#do(act),
      readOnly: () => this.#readOnly(),
    };
  }
}

globalThis.customElements?.get('lockhouse-dialog') ?? globalThis.customElements?.define('lockhouse-dialog', LockhouseDialog);
