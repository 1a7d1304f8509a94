// The webhooks: how their receivers do.

import { arrange, h, say, table } from './dom.js';
import { count, time } from './format.js';

const STATES = {
  up_to_date: 'up to date',
  sending: 'sending',
  failing: 'failing',
  elsewhere: 'sent by another server',
};

/** The section, hidden if there are no webhooks or the user is no administrator. `refresh` reads them. */
export function makeWebhooks(app, signal) {
  const { whole, body, row } = table('Webhooks', [
    ['Name', ''],
    ['Receiver', ''],
    ['State', ''],
    ['Not confirmed', 'num'],
    ['Last confirmed', 'num'],
    ['Last error', ''],
    ['', 'act'],
  ]);
  const title = h('h2', { id: 'webhooks' }, 'Webhooks');
  const node = h('section', { hidden: true, 'aria-labelledby': 'webhooks' }, title, h('div', { class: 'scroll' }, whole));
  /** Rows by name. A row stays, so that its button keeps the focus. */
  const rows = new Map();
  let areThere = app.session.administers;

  async function tryNow(name) {
    try {
      await app.client.request('POST', `/api/v1/webhooks/${encodeURIComponent(name)}/try`);
      app.tell(`${name} is tried now.`);
      await refresh();
    } catch (error) {
      if (!signal.aborted && !app.isOver(error)) app.tell(error.message);
    }
  }

  function makeRow(name, url) {
    const parts = { state: h('span', { class: 'sub' }), lag: h('span', {}), confirmed: h('span', {}), error: h('span', {}) };
    const button = h(
      'button',
      { type: 'button', class: 'small', 'aria-label': `Try ${name} now`, onclick: () => tryNow(name) },
      'Try now',
    );
    return { ...parts, node: row(name, url, parts.state, parts.lag, parts.confirmed, parts.error, button) };
  }

  async function refresh() {
    if (!areThere) return;
    const { webhooks } = await app.client.request('GET', '/api/v1/webhooks', { signal });
    areThere = webhooks.length > 0;
    node.hidden = !areThere;
    for (const { name, url, state, lag, last_delivered_at, last_error, last_error_at } of webhooks) {
      if (!rows.has(name)) rows.set(name, makeRow(name, url));
      const shown = rows.get(name);
      say(shown.state, STATES[state]);
      shown.state.classList.toggle('worry', state === 'failing');
      say(shown.lag, state === 'elsewhere' ? '–' : count(lag));
      shown.confirmed.replaceChildren(last_delivered_at ? time(last_delivered_at) : '–');
      shown.error.replaceChildren(...(last_error ? [time(last_error_at), `: ${last_error}`] : ['–']));
    }
    arrange(
      body,
      webhooks.map(({ name }) => rows.get(name).node),
    );
  }

  return { node, refresh };
}
