/** Signals a pending request for the lock outside of the page: tab title, notification, sound. */
export class Alert {
  /** The page's title, and the one set here. @type {{ before: string, now: string } | null} */ #title = null;
  /** @type {Notification | null} */ #notification = null;
  /** The last text. */ #text = '';

  /** Sets the text; an empty one ends the signal. Never throws.
   * @param {string} text @param {{ notifies: boolean, sounds: boolean }} options for a hidden page */
  show(text, { notifies, sounds }) {
    if (text === this.#text) return;
    this.#text = text;
    this.#setTitle(text);
    this.#notification?.close();
    this.#notification = null;
    if (!text || !document.hidden) return;
    if (notifies) this.#notify(text);
    if (sounds) sound();
  }

  /** @param {string} text */
  #setTitle(text) {
    const { title } = document;
    // A title that the page has set meanwhile is kept.
    const before = this.#title && title === this.#title.now ? this.#title.before : title;
    const now = text ? `(1) ${text} – ${before}` : before;
    document.title = now;
    this.#title = text ? { before, now } : null;
  }

  /** @param {string} text */
  #notify(text) {
    try {
      if (Notification.permission !== 'granted') return;
      this.#notification = new Notification(text, { tag: 'lockhouse ' + text });
      this.#notification.addEventListener('click', () => window.focus());
    } catch {
      // On some systems only a service worker may show one.
    }
  }
}

/** Requests the permission for notifications. Browsers require a user gesture. */
export function askToNotify() {
  try {
    if (Notification.permission === 'default') Notification.requestPermission().catch(() => {});
  } catch {
    // Notifications are not supported.
  }
}

/** Two short tones. */
function sound() {
  try {
    const audio = new AudioContext();
    const gain = new GainNode(audio, { gain: 0.1 });
    const tone = new OscillatorNode(audio, { frequency: 660 });
    tone.frequency.setValueAtTime(880, audio.currentTime + 0.15);
    tone.connect(gain).connect(audio.destination);
    tone.addEventListener('ended', () => audio.close().catch(() => {}));
    tone.start();
    tone.stop(audio.currentTime + 0.35);
  } catch {
    // Audio is not supported.
  }
}
