/** Tells of a knock to somebody who looks elsewhere. */
export class Alert {
  /** What it was called before, and what it is called now. @type {{ before: string, now: string } | null} */ #title = null;
  /** @type {Notification | null} */ #notification = null;
  /** What was told last. */ #text = '';

  /** Begins, or goes on, to tell this; an empty text ends it. The title of the tab says it. Never throws.
   * @param {string} text @param {{ notifies: boolean, sounds: boolean }} more what the page wants besides, for a page that is not seen */
  tell(text, { notifies, sounds }) {
    if (text === this.#text) return;
    this.#text = text;
    this.#call(text);
    this.#notification?.close();
    this.#notification = null;
    if (!text || !document.hidden) return;
    if (notifies) this.#notify(text);
    if (sounds) sound();
  }

  /** @param {string} text */
  #call(text) {
    const { title } = document;
    // If the page has changed it meanwhile, it stays.
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
      // On some systems only a service worker may.
    }
  }
}

/** Asks whether notifications are wanted. To be called when the person has pressed something. */
export function askToNotify() {
  try {
    if (Notification.permission === 'default') Notification.requestPermission().catch(() => {});
  } catch {
    // There are none.
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
    // There is none.
  }
}
