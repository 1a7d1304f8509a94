/** A choice that a person has.
 * @typedef {object} Choice
 * @property {string} key what tells it from others.
 * @property {string} label
 * @property {(typed: string) => unknown} act
 * @property {'primary' | 'danger'} [look]
 * @property {boolean} [isOff] it cannot be chosen; the panel says why.
 */
/** What is shown.
 * @typedef {object} Panel
 * @property {string} key what tells it from others: what is typed belongs to it.
 * @property {string} title
 * @property {string[]} text
 * @property {() => string} [ticking] what changes with time; nobody has it read out each second.
 * @property {string} [quote] a text of the person's own, in full.
 * @property {string | undefined} [said] an answer to what was done.
 * @property {boolean} [isBad] the answer is that it did not go well.
 * @property {string} [field] the label of the field.
 * @property {Choice[]} choices
 */

/** @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, string>} [attributes] @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[T]} */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Where a panel is shown. What stays the same keeps its element, and so the focus. All that people wrote is text. */
export class Surface {
  /** @type {Panel | null} */ #panel = null;
  #isBusy = false;

  /** @param {HTMLElement} root @param {string} name what the ids begin with @param {HTMLElement} heard what is read out */
  constructor(root, name, heard) {
    this.root = root;
    this.heard = heard;
    this.title = element('h2', { id: name + '-title', tabindex: '-1', part: 'title' });
    this.text = element('div', { id: name + '-text', part: 'text' });
    this.quote = element('pre', { part: 'quote', tabindex: '0' });
    this.ticking = element('p', { class: 'ticking', part: 'activity' });
    this.input = element('input', { maxlength: '120', part: 'field', autocomplete: 'off' });
    this.label = element('label', {}, '', this.input);
    this.said = element('p', { class: 'said', role: 'status', part: 'said' });
    this.choices = element('div', { class: 'choices', part: 'choices' });
    root.setAttribute('aria-labelledby', this.title.id);
    root.setAttribute('aria-describedby', this.text.id);
    root.append(this.title, this.text, this.quote, this.ticking, this.label, this.said, this.choices);
    this.input.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.isComposing) this.#choose(this.#panel?.choices[0]?.key);
    });
  }

  /** @param {Panel} panel @param {boolean} [isBusy] a choice has been made, and takes its time */
  show(panel, isBusy = false) {
    const old = this.#panel;
    this.#panel = panel;
    this.#isBusy = isBusy;
    const hadFocus = this.#focused();
    write(this.title, panel.title);
    const { children } = this.text;
    while (children.length > panel.text.length) children[0]?.remove();
    while (children.length < panel.text.length) this.text.append(element('p'));
    panel.text.forEach((text, index) => write(children[index], text));
    this.quote.hidden = panel.quote === undefined;
    write(this.quote, panel.quote ?? '');
    this.quote.setAttribute('aria-labelledby', this.title.id);
    this.said.hidden = !panel.said;
    this.said.classList.toggle('bad', Boolean(panel.isBad));
    write(this.said, panel.said ?? '');
    this.label.hidden = panel.field === undefined;
    if (this.label.firstChild) write(this.label.firstChild, panel.field ?? '');
    if (old?.key !== panel.key) this.input.value = '';
    this.#showChoices(panel.choices, isBusy);
    this.tick();
    if (old?.key === panel.key && old.title === panel.title && String(old.text) === String(panel.text)) return;
    if (hadFocus && old?.key !== panel.key) this.focus();
    // Of a dialog that opens a screen reader tells by itself.
    else if (old || this.root.localName !== 'dialog') write(this.heard, [panel.title, ...panel.text].join(' '));
  }

  hide() {
    this.#panel = null;
    write(this.heard, '');
  }

  /** Shows what changes with time. */
  tick() {
    const text = this.#panel?.ticking?.() ?? '';
    this.ticking.hidden = !text;
    write(this.ticking, text);
  }

  /** To where it begins: not to a button, since whoever is typing would press it. */
  focus() {
    (this.#panel?.field === undefined ? this.title : this.input).focus();
  }

  #focused() {
    const { activeElement } = /** @type {ShadowRoot} */ (this.root.getRootNode());
    return this.root.contains(activeElement);
  }

  /** @param {Choice[]} choices @param {boolean} isBusy */
  #showChoices(choices, isBusy) {
    const buttons = /** @type {HTMLButtonElement[]} */ ([...this.choices.children]);
    const known = choices.map(({ key }) => key);
    if (String(buttons.map((button) => button.dataset.key)) !== String(known)) {
      const made = known.map((key) => {
        const button = element('button', { type: 'button', 'data-key': key, part: `button ${key}` });
        button.addEventListener('click', () => this.#choose(key));
        return button;
      });
      this.choices.replaceChildren(...made);
    }
    choices.forEach(({ label, look, isOff }, index) => {
      const button = /** @type {HTMLButtonElement} */ (this.choices.children[index]);
      write(button, label);
      button.className = look ?? '';
      button.disabled = Boolean(isOff);
      // It keeps the focus while it is busy.
      button.ariaDisabled = String(isBusy);
    });
  }

  /** @param {string | undefined} key */
  #choose(key) {
    if (!this.#isBusy) this.#panel?.choices.find((choice) => choice.key === key)?.act(this.input.value.trim());
  }
}

/** Writes a text. What is isolated in it has an element of its own, so that its direction is its own, too.
 * @param {Node | undefined} node @param {string} text */
function write(node, text) {
  const parts = text.split(/[\u2068\u2069]/);
  if (!node || node.textContent === parts.join('')) return;
  if (parts.length > 1 && node instanceof Element) node.replaceChildren(...parts.map((part, index) => (index % 2 ? element('bdi', {}, part) : part)));
  else node.textContent = parts.join('');
}

/** A name, or what somebody wrote, that stands in a sentence: as it is isolated in Unicode (FSI, PDI).
 * @param {string} text */
export const isolate = (text) => `\u2068${text.replace(/[\u2066-\u2069\u202a-\u202e]/g, '')}\u2069`;

/** The element that has the focus, through all shadow roots.
 * @param {Document | ShadowRoot} root @returns {HTMLElement | null} */
export function focusedIn(root) {
  const { activeElement } = root;
  const inner = activeElement?.shadowRoot ? focusedIn(activeElement.shadowRoot) : null;
  return inner ?? (activeElement instanceof HTMLElement ? activeElement : null);
}
