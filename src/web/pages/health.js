// The health of the server, from its metrics, and its webhooks.

import { Chart } from './chart.js';
import { now } from './clock.js';
import { h, say } from './dom.js';
import { count, span } from './format.js';
import { repeat } from './live.js';
import { CHARTS, FACTS } from './measures.js';
import { parse } from './metrics.js';
import { LONGEST_MS, Samples } from './samples.js';
import { makeWebhooks } from './webhooks.js';

const EACH_MS = 2000;
const RANGES_MS = [300_000, 900_000, LONGEST_MS];

export function showHealth(app, root, { signal }) {
  const title = h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Health'));
  if (!app.session.monitors) {
    const who = 'You are signed in with the scope “user”.';
    root.append(title, h('p', { class: 'empty' }, 'The numbers are for administrators, services and monitoring. ', who));
    return;
  }
  const version = h('p', { class: 'number' });
  title.append(version);
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const charts = CHARTS.map((given) => new Chart(given));
  const facts = FACTS.map((given) => ({ ...given, value: h('dd', {}, '–'), about: h('dd', { class: 'sub' }, given.about), words: given.about }));
  const range = h(
    'select',
    {},
    RANGES_MS.map((ms) => h('option', { value: ms, selected: String(ms) === app.query.get('range') }, span(ms))),
  );
  range.addEventListener('change', () => {
    app.setQuery({ range: range.value });
    draw();
  });
  const webhooks = makeWebhooks(app, signal);
  const all = h(
    'div',
    { hidden: true },
    webhooks.node,
    h('div', { class: 'charts' }, charts.map(({ node }) => node)),
    h(
      'section',
      { 'aria-labelledby': 'facts' },
      h('h2', { id: 'facts' }, 'Numbers'),
      h('dl', { class: 'facts' }, facts.map(({ name, value, about }) => h('div', {}, h('dt', {}, name), value, about))),
    ),
  );

  const samples = new Samples();
  addEventListener('pagehide', () => samples.keep(), { signal });
  signal.addEventListener('abort', () => samples.keep());

  let before;
  let beforeAt;
  repeat(
    async () => {
      try {
        const response = await app.client.open('GET', '/metrics', {
          signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
        });
        const after = parse(await response.text());
        await webhooks.refresh();
        const at = performance.now();
        if (before) samples.add(CHARTS.map(({ value }) => value(before, after, (at - beforeAt) / 1000)));
        [before, beforeAt] = [after, at];
        show(after);
        draw();
        say(wrong, '');
        all.hidden = false;
      } catch (error) {
        if (signal.aborted || app.isOver(error)) return;
        say(wrong, `The numbers cannot be read: ${error.message}`);
      }
    },
    EACH_MS,
    signal,
  );

  function show(metrics) {
    const info = metrics.get('lockhouse_build_info')?.[0];
    say(version, info ? `version ${info.labels.version}` : '');
    charts.forEach(({ node }, place) => (node.hidden = !metrics.has(CHARTS[place].needs)));
    for (const { read, value, about, words, worry } of facts) {
      const number = read(metrics);
      const isWorry = Boolean(worry) && number > 0;
      say(value, count(number));
      say(about, isWorry ? worry : words);
      about.classList.toggle('worry', isWorry);
    }
  }

  function draw() {
    const [until, ms] = [now(), Number(range.value)];
    charts.forEach((chart, place) => chart.show(samples.of(place, until - ms), until, ms));
  }

  title.append(h('label', { class: 'actions check' }, 'Time range', range));
  root.append(title, wrong, all);
}
