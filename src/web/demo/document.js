import { byId, element, fenceOf, short, write } from './page.js';

/** The document that both people edit. It stands for the app's database: it stores the highest fence, and refuses a save
 * with a lower one. It does not call the lock server. */
export class SharedDocument extends EventTarget {
  text = 'The workshop is on Thursday.\n\n';
  #highest = 0;

  constructor() {
    super();
    this.#show();
  }

  /** A lease begins to edit: records its fence and returns the text. */
  open(fence) {
    this.#highest = Math.max(this.#highest, fence);
    this.#show();
    return this.text;
  }

  /** Saves. Returns whether the save was accepted. */
  save(name, text, fence) {
    const isOld = fence < this.#highest;
    if (!isOld) {
      this.#highest = fence;
      this.text = text;
    }
    const outcome = isOld
      ? `Refused what ${name} saved: fence ${short(fence)} is older than ${short(this.#highest)}.`
      : `Saved by ${name} with fence ${short(fence)}.`;
    byId('outcome').className = isOld ? 'outcome bad' : 'outcome good';
    write(byId('outcome'), outcome);
    this.#show();
    this.dispatchEvent(new CustomEvent('saved', { detail: { outcome, isOld } }));
    return !isOld;
  }

  /** A delayed save, which arrives when the visitor lets it. */
  saveSlowly(name, text, fence) {
    const arrive = element('button', '', 'Let it arrive');
    arrive.type = 'button';
    arrive.ariaLabel = `Let it arrive: the save by ${name}`;
    const what = element('span', '', `${name}’s save, fence `, fenceOf(fence));
    const item = element('li', '', what, arrive);
    arrive.addEventListener('click', () => {
      const next = item.nextElementSibling ?? item.previousElementSibling;
      item.remove();
      this.save(name, text, fence);
      (next?.querySelector('button') ?? byId('saved')).focus();
    });
    byId('way').append(item);
    this.#show();
  }

  #show() {
    write(byId('saved'), this.text);
    if (this.#highest) byId('highest').replaceChildren(fenceOf(this.#highest));
    byId('way-empty').hidden = byId('way').childElementCount > 0;
  }
}
