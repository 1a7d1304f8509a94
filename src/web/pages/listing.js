// A list of the API with a search. The API has a fixed order and no search, so both are done here on the entries that
// were read.

import { saveCsv } from './csv.js';
import { arrange, field, h, say, table } from './dom.js';
import { many } from './format.js';

/** Entries of one page. */
const PAGE = 500;
/** A search reads more entries by itself, up to this number. */
const SEARCHED = 10_000;
/** Delay after typing before a request (milliseconds). */
const TYPING_MS = 300;

/**
 * `path`: the API's path. `member`: the name of the entries in the response. `key`: identifies an entry. `texts`: what is
 * searched. `cells`: a row under the `headings`. `columns`: the fields of an export. `order`: compares two entries; its third
 * argument says whether all were read. `nothing`: shown for an empty list.
 */
export class Listing {
  #entries = new Map();
  /** The cursor of the next page; null at the end. */
  #cursor;
  /** Rows by key, with their source. An unchanged row is reused, so that it keeps the focus. */
  #rows = new Map();
  #reading = 0;
  #typing;

  constructor(app, { signal, headings, caption, placeholder, nothing, ...given }) {
    Object.assign(this, { app, signal, given });
    this.table = table(caption, headings);
    this.search = h('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', placeholder, value: app.query.get('find') });
    this.search.addEventListener('input', () => this.#typed());
    this.number = h('p', { class: 'number' });
    this.wrong = h('p', { class: 'wrong', role: 'alert' });
    this.nothing = h('div', { class: 'empty', hidden: true }, nothing);
    this.unfit = h('p', { class: 'empty', hidden: true }, 'None fits what you typed.');
    this.more = h(
      'button',
      { type: 'button', class: 'more', hidden: true, onclick: () => this.#attempt(() => this.#readOn()) },
      'Show more',
    );
    this.actions = h(
      'div',
      { class: 'actions', hidden: true },
      h('button', { type: 'button', class: 'small', onclick: () => this.#attempt(() => this.#save()) }, 'Download CSV'),
    );
    this.tools = h('div', { class: 'toolbar', role: 'search', hidden: true }, field('Find', this.search));
    this.table.whole.hidden = true;
    this.node = h(
      'div',
      {},
      this.wrong,
      this.tools,
      h('div', { class: 'scroll' }, this.table.whole),
      this.nothing,
      this.unfit,
      this.more,
    );
  }

  /** Reads again as many entries as before, or the first page. */
  refresh() {
    const size = this.#entries.size;
    return this.#attempt(async () => {
      const number = ++this.#reading;
      const found = new Map();
      let cursor;
      do cursor = await this.#page(cursor, found);
      while (cursor !== null && found.size < size);
      // A newer read has started.
      if (number !== this.#reading) return;
      this.#entries = found;
      this.#cursor = cursor;
      this.#show();
      // The address may contain a search.
      if (this.#words) await this.#readAll();
    });
  }

  async #page(cursor, into) {
    const { path, member, key } = this.given;
    const query = { limit: PAGE, cursor: cursor ?? undefined };
    const page = await this.app.client.request('GET', path, { query, signal: this.signal });
    for (const entry of page[member]) into.set(key(entry), entry);
    return page.next_cursor;
  }

  async #readOn() {
    const entries = this.#entries;
    const cursor = await this.#page(this.#cursor, entries);
    if (entries !== this.#entries) return;
    this.#cursor = cursor;
    this.#show();
  }

  get #words() {
    return this.search.value.trim().toLowerCase();
  }

  #typed() {
    this.app.setQuery({ find: this.search.value });
    this.#show();
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => this.#attempt(() => this.#words && this.#readAll()), TYPING_MS);
  }

  async #readAll() {
    while (this.#cursor !== null && this.#entries.size < SEARCHED) await this.#readOn();
  }

  async #save() {
    await this.#readAll();
    const { member, columns } = this.given;
    saveCsv(`${member}.csv`, columns, this.#shown);
    if (this.#cursor !== null) this.app.tell(`The file has what fits of the first ${this.#entries.size} ${member}.`);
  }

  /** The matching entries, in order. */
  get #shown() {
    const { texts, order } = this.given;
    return [...this.#entries.values()]
      .filter((entry) => texts(entry).some((text) => text?.toLowerCase().includes(this.#words)))
      .sort((one, other) => order(one, other, this.#cursor === null));
  }

  #show() {
    const { key, cells, word } = this.given;
    const words = this.#words;
    const isWhole = this.#cursor === null;
    const shown = this.#shown;
    const rows = new Map();
    for (const entry of shown) {
      const from = JSON.stringify(entry);
      const known = this.#rows.get(key(entry));
      const stays = known?.from === from && known.node.contains(document.activeElement);
      rows.set(key(entry), stays ? known : { from, node: this.table.row(...cells(entry)) });
    }
    this.#rows = rows;
    arrange(
      this.table.body,
      [...rows.values()].map(({ node }) => node),
    );
    const all = this.#entries.size;
    const beyond = isWhole ? '' : '+';
    this.number.setAttribute('aria-live', words ? 'polite' : 'off');
    say(this.number, words ? `${shown.length} of ${all}${beyond}` : isWhole ? many(all, word) : `${all}+ ${word}s`);
    this.tools.hidden = this.actions.hidden = all === 0;
    this.table.whole.hidden = shown.length === 0;
    this.nothing.hidden = all > 0;
    this.unfit.hidden = all === 0 || shown.length > 0;
    this.more.hidden = isWhole;
  }

  /** Shows the error of `work`. */
  async #attempt(work) {
    try {
      await work();
      say(this.wrong, '');
    } catch (error) {
      if (!this.signal.aborted && !this.app.isOver(error)) say(this.wrong, error.message);
    }
  }
}
