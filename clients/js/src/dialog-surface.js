/** A button of a panel.
 * @typedef {object} Choice
 * @property {string} key identifies it within the panel.
 * @property {string} label
 * @property {(typed: string) => unknown} act
 * @property {'primary' | 'danger'} [look]
 * @property {boolean} [isOff] it is disabled; the panel says why.
 */
/** The content of the dialog or of the notice.
 * @typedef {object} Panel
 * @property {string} key identifies it. The input is cleared when the key changes.
 * @property {string} title
 * @property {string[]} text
 * @property {() => string} [ticking] text that changes with time; not announced by screen readers.
 * @property {string} [quote] the person's own text, in full.
 * @property {string | undefined} [said] result of the last action.
 * @property {boolean} [isBad] the result is an error.
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

/** Renders panels. Elements are reused, so they keep the focus. Text from users is never parsed as HTML. */
export class Surface {
  /** @type {Panel | null} */ #panel = null;
  #isBusy = false;

  /** @param {HTMLElement} root @param {string} name prefix of the ids @param {HTMLElement} live the live region for screen readers */
  constructor(root, name, live) {
    this.root = root;
    this.live = live;
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

  /** @param {Panel} panel @param {boolean} [isBusy] an action is running */
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
    // Screen readers announce a dialog that opens without the live region.
    else if (old || this.root.localName !== 'dialog') write(this.live, [panel.title, ...panel.text].join(' '));
  }

  hide() {
    this.#panel = null;
    write(this.live, '');
  }

  /** Updates the text that changes with time. */
  tick() {
    const text = this.#panel?.ticking?.() ?? '';
    this.ticking.hidden = !text;
    write(this.ticking, text);
  }

  /** Moves the focus to the start of the panel. Not to a button, which a person who is typing would press. */
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
      // `disabled` would drop the focus.
      button.ariaDisabled = String(isBusy);
    });
  }

  /** @param {string | undefined} key */
  #choose(key) {
    if (!this.#isBusy) this.#panel?.choices.find((choice) => choice.key === key)?.act(this.input.value.trim());
  }
}

/** Sets the text of a node. Isolated parts become `<bdi>` elements.
 * @param {Node | undefined} node @param {string} text */
function write(node, text) {
  const parts = text.split(/[\u2068\u2069]/);
  if (!node || node.textContent === parts.join('')) return;
  if (parts.length > 1 && node instanceof Element) node.replaceChildren(...parts.map((part, index) => (index % 2 ? element('bdi', {}, part) : part)));
  else node.textContent = parts.join('');
}

/** Isolates the text direction of a name or note within a sentence, by the Unicode characters FSI and PDI.
 * @param {string} text */
export const isolate = (text) => `\u2068${text.replace(/[\u2066-\u2069\u202a-\u202e]/g, '')}\u2069`;

/** The focused element, also inside shadow roots.
 * @param {Document | ShadowRoot} root @returns {HTMLElement | null} */
export function focusedIn(root) {
  const { activeElement } = root;
  const inner = activeElement?.shadowRoot ? focusedIn(activeElement.shadowRoot) : null;
  return inner ?? (activeElement instanceof HTMLElement ? activeElement : null);
}
