import { Alert, askToNotify } from './dialog-alert.js';
import { languageOf, loadTexts } from './dialog-language.js';
import { isSessionHere, placeInQueue } from './dialog-lookup.js';
import { errorText, mainPanel, noticePanel } from './dialog-panels.js';
import { STYLE } from './dialog-style.js';
import { Surface, element, focusedIn } from './dialog-surface.js';
import { TEXTS } from './dialog-texts.js';
import { age } from './dialog-time.js';
import { Refusal } from './refusal.js';

export { TEXTS };

/** @typedef {import('./lock.js').View} View */
/** @typedef {import('./dialog-texts.js').Texts} Texts */
/** @typedef {Partial<Omit<Texts, 'reasons'>> & { reasons?: Partial<Texts['reasons']> }} SomeTexts */

/** Interval of reads while the dialog is open (milliseconds). Heartbeats change the lock without an event. */
const REFRESH_MS = 10_000;
/** A shorter interruption is not shown (milliseconds). */
const QUIET_MS = 1_500;
// The module can be imported where there is no DOM.
const Base = globalThis.HTMLElement ?? /** @type {typeof HTMLElement} */ (class {});

/** `<lockhouse-dialog>`: shows who is editing, and offers what the person can do. Set its `lock`, and call `edit()` when the person
 * wants to edit. It opens by itself when the lock is lost, and shows a notice when a user asks for the lock. With the attribute
 * `inline` it covers its positioned ancestor instead of the page. A pending request also changes the tab's title; with the attributes
 * `notify` and `sound` it also causes a notification and a sound while the page is hidden.
 *
 * Events: `readonly` (the person chose to read only), `open`, `close`. */
export class LockhouseDialog extends Base {
  /** @type {import('./lock.js').WorkspaceLock | null} */ #lock = null;
  /** @type {Texts} */ #texts = TEXTS;
  /** Texts that the page has set. @type {SomeTexts} */ #pageTexts = {};
  /** Texts of the language. @type {Texts} */ #languageTexts = TEXTS;
  #language = 'en';
  #isOpen = false;
  /** The step of the person's choice, and the fence that was shown. */
  #step = { is: /** @type {import('./dialog-panels.js').Step} */ (''), fence: 0 };
  /** The fence of the lock that may not be taken over. */ #refusedFence = 0;
  #hasDeclined = false;
  #isBusy = false;
  #problem = '';
  /** @type {View['loss']} */ #shownLoss = null;
  /** The element to give the focus back to. @type {HTMLElement | null} */ #focusBefore = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #timer;
  #listening = new AbortController();
  /** @type {HTMLElement} */ #veil;
  /** @type {HTMLDialogElement} */ #dialog;
  /** Content of the dialog. @type {Surface} */ #main;
  /** Content of the notice. @type {Surface} */ #notice;
  #refreshedAt = 0;
  #alert = new Alert();
  /** The holder's session, and whether its page is in this browser. */ #nearSession = { session: '', is: false };
  /** @type {import('./dialog-panels.js').Context['place']} */ #place = null;
  /** When the holder of the lease `fence` can be asked again, on the monotonic clock. */ #askAgain = { fence: 0, at: 0 };
  #waitingSeen = 0;
  /** When the connection was lost, on the monotonic clock; 0 while it exists. */ #offlineSince = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    this.#veil = element('div', { class: 'veil', part: 'veil', hidden: '' });
    this.#dialog = element('dialog', { part: 'dialog' });
    const section = element('section', { part: 'notice', hidden: '' });
    const inside = element('div', { class: 'live', role: 'status' });
    const outside = element('div', { class: 'live', role: 'status' });
    this.#main = new Surface(this.#dialog, 'dialog', inside);
    this.#notice = new Surface(section, 'notice', outside);
    // Screen readers ignore what is outside of an open modal dialog.
    this.#dialog.append(inside);
    root.append(this.#veil, this.#dialog, outside, section);
    this.#main.title.autofocus = true;
    this.#dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      this.#escape();
    });
    // A browser may close it although `cancel` was prevented. The event is asynchronous: it may be open again.
    this.#dialog.addEventListener('close', () => this.#isOpen && !this.#dialog.open && this.#readOnly());
    this.#dialog.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || !this.hasAttribute('inline') || event.isComposing) return;
      event.preventDefault();
      this.#escape();
    });
  }

  /** The lock to show. */
  get lock() {
    return this.#lock;
  }

  set lock(lock) {
    if (lock === this.#lock) return;
    this.#unlisten();
    this.close();
    this.#lock = lock;
    this.#shownLoss = lock?.view.loss ?? null;
    this.#refusedFence = 0;
    this.#problem = '';
    this.#hasDeclined = false;
    this.#askAgain = { fence: 0, at: 0 };
    this.#place = null;
    this.#waitingSeen = 0;
    this.#offlineSince = 0;
    if (this.isConnected) this.#listen();
  }

  /** The texts. Missing ones are taken from the language. @type {SomeTexts} */
  get texts() {
    return this.#texts;
  }

  set texts(texts) {
    this.#pageTexts = texts;
    this.#mergeTexts();
  }

  #mergeTexts() {
    const [base, own] = [this.#languageTexts, this.#pageTexts];
    this.#texts = { ...base, ...own, reasons: { ...base.reasons, ...own?.reasons } };
    this.#render();
  }

  static observedAttributes = ['lang'];

  attributeChangedCallback() {
    if (this.isConnected) this.#updateLanguage();
  }

  async #updateLanguage() {
    const language = languageOf(this);
    if (language === this.#language) return;
    this.#language = language;
    const texts = await loadTexts(language);
    if (language !== this.#language) return;
    this.#languageTexts = texts;
    for (const { root } of [this.#main, this.#notice]) root.lang = texts === TEXTS ? 'en' : language;
    this.#mergeTexts();
  }

  get open() {
    return this.#isOpen;
  }

  /** Acquires the lock, or opens and shows why that is not possible.
   * @returns {Promise<import('./lock.js').State>} */
  async edit() {
    const lock = this.#lock;
    if (!lock) return 'unknown';
    if (this.hasAttribute('notify')) askToNotify();
    const slow = setTimeout(() => lock === this.#lock && this.show(), QUIET_MS);
    try {
      await this.#run(() => lock.acquire());
    } finally {
      clearTimeout(slow);
    }
    if (lock === this.#lock && lock.state !== 'held') this.show();
    return lock.state;
  }

  /** Opens, unless this tab holds the lock. */
  show() {
    this.#show(true);
  }

  /** @param {boolean} isRequested the person wants to see it */
  #show(isRequested) {
    if (this.#isOpen || !this.isConnected || !this.#lock || this.#lock.state === 'held') return;
    this.#isOpen = true;
    this.#render();
    const before = focusedIn(document);
    if (this.hasAttribute('inline')) {
      this.#veil.hidden = false;
      this.#dialog.setAttribute('open', '');
      this.#focusBefore = null;
      // Without a request it takes the focus only from what it covers.
      if (isRequested || before === document.body || this.parentElement?.contains(document.activeElement)) {
        this.#focusBefore = before;
        this.#main.focus();
      }
    } else {
      this.#dialog.showModal();
    }
    this.#refresh();
    this.dispatchEvent(new Event('open'));
  }

  /** Closes without a choice. */
  close() {
    if (!this.#isOpen) return;
    const hadFocus = this.shadowRoot?.activeElement;
    this.#isOpen = false;
    this.#step.is = '';
    this.#problem = '';
    this.#hasDeclined = false;
    this.#veil.hidden = true;
    this.#dialog.close();
    if (hadFocus) this.#focusBefore?.focus();
    this.#focusBefore = null;
    this.#main.hide();
    this.#render();
    this.dispatchEvent(new Event('close'));
  }

  connectedCallback() {
    this.#updateLanguage();
    this.#listen();
  }

  disconnectedCallback() {
    this.#unlisten();
    this.close();
    this.#render();
  }

  #listen() {
    const lock = this.#lock;
    if (!lock) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    lock.addEventListener('change', () => this.#onChange(lock.view), { signal });
    const declined = (/** @type {CustomEvent<{ againInMs: number }>} */ { detail }) => {
      this.#onDeclined(detail.againInMs);
      this.#show(false);
      this.#render();
    };
    lock.addEventListener('declined', declined, { signal });
    lock.addEventListener('draft', () => this.#render(), { signal });
    this.#timer = setInterval(() => this.#tick(), 1_000);
    this.#onChange(lock.view);
  }

  /** @param {number} againInMs until the holder can be asked again */
  #onDeclined(againInMs) {
    this.#hasDeclined = true;
    this.#askAgain = { fence: this.#lock?.view.holder?.fence ?? 0, at: performance.now() + againInMs };
  }

  #unlisten() {
    this.#listening.abort();
    clearInterval(this.#timer);
  }

  /** @param {View} view */
  #onChange({ state, loss, holder, knock, isConnected, isOtherTab, waiting }) {
    // `age` counts from the first call.
    for (const value of [holder, holder?.knock, knock]) if (value) age(value);
    if (isConnected) this.#offlineSince = 0;
    else this.#offlineSince ||= performance.now();
    if (state !== 'held-by-other' && state !== 'waiting') this.#hasDeclined = false;
    if (state !== 'waiting') this.#place = null;
    else if (!this.#place) this.#findPlace();
    // A pending request implies that somebody waits, so no other notice is needed.
    if (state !== 'held') this.#waitingSeen = 0;
    else if (knock) this.#waitingSeen = Math.max(this.#waitingSeen, waiting, 1);
    if (isOtherTab && holder?.session_id) this.#locateSession(holder.session_id);
    // A step is valid for one lease only.
    if ((state !== 'held-by-other' && state !== 'lost') || holder?.fence !== this.#step.fence) this.#step.is = '';
    if (state === 'held') this.close();
    const isNews = loss && loss !== this.#shownLoss && (state === 'lost' || state === 'held-by-other');
    if (!loss || isNews) this.#shownLoss = loss;
    // An earlier error is about the lease that is gone.
    if (isNews) this.#problem = '';
    this.#render();
    // During a handover by this person, the event may arrive before the answer.
    if (!isNews || (loss.reason === 'handed_over' && this.#isBusy)) return;
    if (loss.comesBack) setTimeout(() => this.#lock?.view.loss === loss && this.#show(false), QUIET_MS);
    else this.#show(false);
  }

  #tick() {
    this.#render();
    if (!this.#isOpen) return;
    // The first read may have preceded the request to wait.
    if (this.#lock?.view.state === 'waiting' && !this.#place?.at && !document.hidden) this.#findPlace();
    if (performance.now() - this.#refreshedAt > REFRESH_MS && !document.hidden) this.#refresh();
  }

  #refresh() {
    this.#refreshedAt = performance.now();
    if (this.#lock?.view.state === 'waiting') this.#findPlace();
    this.#lock?.refresh().catch(() => {});
  }

  /** Finds out whether the page with this session is in this browser. @param {string} session */
  async #locateSession(session) {
    if (session === this.#nearSession.session) return;
    this.#nearSession = { session, is: false };
    if (!(await isSessionHere(session)) || this.#nearSession.session !== session) return;
    this.#nearSession.is = true;
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

  /** Runs an action, and shows its error.
   * @param {() => unknown} action */
  async #run(action) {
    const { view } = this.#lock ?? {};
    this.#problem = '';
    if (view?.state !== 'waiting') this.#hasDeclined = false;
    this.#isBusy = true;
    this.#render();
    try {
      await action();
    } catch (error) {
      if (error instanceof Refusal && error.code === 'knock_too_soon') {
        this.#onDeclined(error.problem.again_in_ms ?? error.retryAfterMs ?? 0);
        this.#step.is = '';
      } else if (error instanceof Refusal && error.code === 'takeover_forbidden') {
        this.#refusedFence = view?.holder?.fence ?? 0;
        this.#step.is = '';
      } else {
        this.#problem = errorText(this.#texts, error);
        if (view?.state !== 'held') this.#show(false);
      }
    }
    this.#isBusy = false;
    this.#render();
  }

  /** @param {import('./dialog-panels.js').Step} step */
  #setStep(step) {
    this.#step = { is: step, fence: this.#lock?.view.holder?.fence ?? 0 };
    this.#problem = '';
    this.#hasDeclined = false;
    this.#render();
  }

  #escape() {
    if (this.#step.is) this.#setStep('');
    else this.#readOnly();
  }

  #readOnly() {
    const lock = this.#lock;
    this.close();
    // The loss is acknowledged. A waiting tab goes on waiting.
    if (lock?.state === 'lost') lock.release().catch(() => {});
    this.dispatchEvent(new Event('readonly'));
  }

  #render() {
    const lock = this.isConnected ? this.#lock : null;
    const context = lock && this.#context(lock);
    if (this.#isOpen && context) this.#main.show(mainPanel(context), this.#isBusy && lock.view.state !== 'waiting');
    const panel = context && noticePanel(context);
    const isKnocked = panel && lock?.view.state === 'held' && lock.view.knock;
    this.#alert.show(isKnocked ? panel.title : '', { notifies: this.hasAttribute('notify'), sounds: this.hasAttribute('sound') });
    const { root } = this.#notice;
    if (panel) this.#notice.show(panel, this.#isBusy && lock?.view.state === 'held');
    else this.#notice.hide();
    if (root.hidden === !panel) return;
    root.hidden = !panel;
    // The popover puts it into the top layer.
    root.popover = this.hasAttribute('inline') ? null : 'manual';
    if (panel && root.popover) root.showPopover();
    else if (root.matches(':popover-open')) root.hidePopover();
  }

  /** @param {import('./lock.js').WorkspaceLock} lock @returns {import('./dialog-panels.js').Context} */
  #context(lock) {
    return {
      lock,
      texts: this.#texts,
      isOpen: this.#isOpen,
      isOffline: this.#offlineSince > 0 && performance.now() - this.#offlineSince > QUIET_MS,
      isRefused: !lock.view.mayTakeOver || (Boolean(this.#refusedFence) && lock.view.holder?.fence === this.#refusedFence),
      // A new request is pending.
      hasDeclined: this.#hasDeclined && !lock.view.hasAsked,
      isSameBrowser: this.#nearSession.is && this.#nearSession.session === lock.view.holder?.session_id,
      place: this.#place?.at ? this.#place : null,
      askAgainInMs: lock.view.holder?.fence === this.#askAgain.fence ? Math.max(0, this.#askAgain.at - performance.now()) : 0,
      waitingSeen: this.#waitingSeen,
      markWaitingSeen: () => {
        this.#waitingSeen = lock.view.waiting;
        this.#render();
      },
      problem: this.#problem,
      step: this.#step.is,
      setStep: (step) => this.#setStep(step),
      run: (action) => this.#run(action),
      readOnly: () => this.#readOnly(),
    };
  }
}

globalThis.customElements?.get('lockhouse-dialog') ?? globalThis.customElements?.define('lockhouse-dialog', LockhouseDialog);
