// How the server is, from its metrics.

import { Chart } from './chart.js';
import { h, say } from './dom.js';
import { bytes, count, seconds } from './format.js';
import { repeat } from './live.js';
import { growth, observed, parse, sum } from './metrics.js';

const EACH_MS = 2000;
/** How many samples are shown: four minutes. */
const KEEP = 120;

const REQUESTS = 'lockhouse_http_requests_total';
const COMMIT = 'lockhouse_writer_commit_duration_seconds';
const BATCH = 'lockhouse_writer_batch_size';

/** A number as it stands in the metrics. */
const gauge = (title, about, format, name) => ({
  title,
  about,
  format,
  needs: name,
  value: (_, after) => sum(after, name),
});

/** What two readings come to, `passed` seconds apart, where the server tells what it `needs`. */
const CHARTS = [
  {
    title: 'Requests per second',
    about: 'all that were answered',
    format: count,
    needs: REQUESTS,
    value: (before, after, passed) => rate(growth(before, after, REQUESTS), passed),
  },
  {
    title: 'Commit time',
    about: 'mean, to the disk',
    format: seconds,
    needs: COMMIT + '_count',
    value: (before, after) => observed(before, after, COMMIT).mean,
  },
  {
    title: 'Commit time, 99th percentile',
    about: '99 of 100 took less',
    format: seconds,
    needs: COMMIT + '_count',
    value: (before, after) => finite(observed(before, after, COMMIT).p99),
  },
  {
    title: 'Writes per commit',
    about: 'mean: how many share one',
    format: count,
    needs: BATCH + '_count',
    value: (before, after) => observed(before, after, BATCH).mean,
  },
  gauge('Queue', 'writes that wait for the writer', count, 'lockhouse_writer_queue_depth'),
  gauge('Live locks', 'now', count, 'lockhouse_live_locks'),
  gauge('Database', 'the size of the file', bytes, 'lockhouse_database_size_bytes'),
  gauge('Write-ahead log', 'the size of the file', bytes, 'lockhouse_wal_size_bytes'),
];

const rate = (grown, passed) => (grown === undefined ? undefined : grown / passed);
const finite = (number) => (Number.isFinite(number) ? number : undefined);

/** Single numbers: what they are called, and how they are read. */
const FACTS = [
  ['Connections', (now) => sum(now, 'lockhouse_connections')],
  ['Requests that wait', (now) => sum(now, 'lockhouse_held_requests')],
  ['Waiting for a lock', (now) => sum(now, 'lockhouse_waiters')],
  ['Following the events', (now) => sum(now, 'lockhouse_followers')],
  ['Takeovers', (now) => sum(now, 'lockhouse_takeovers_total')],
  ['Expiries', (now) => sum(now, 'lockhouse_expiries_total')],
  ['Clock corrections', (now) => sum(now, 'lockhouse_clock_corrections_total')],
  ['Refused at the door', (now) => sum(now, 'lockhouse_refusals_total') ?? 0],
  ['Cut off', (now) => sum(now, 'lockhouse_cuts_total') ?? 0],
  ['Answers with 5xx', (now) => sum(now, 'lockhouse_http_requests_total', ({ status }) => status >= '500') ?? 0],
];

export function showHealth(app, root, { signal }) {
  if (!app.session.monitors) {
    const who = 'You are signed in with the scope “user”.';
    root.append(
      h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Health')),
      h('p', { class: 'empty' }, 'The numbers are for administrators, services and monitoring. ', who),
    );
    return;
  }
  const version = h('p', { class: 'number' });
  const wrong = h('p', { class: 'wrong', role: 'alert' });
  const charts = CHARTS.map((given) => ({ given, chart: new Chart({ ...given, keep: KEEP }) }));
  const facts = FACTS.map(([name, read]) => ({ read, value: h('dd', {}, '–'), name }));
  const all = h(
    'div',
    { hidden: true },
    h(
      'div',
      { class: 'charts' },
      charts.map(({ chart }) => chart.node),
    ),
    h(
      'section',
      { 'aria-labelledby': 'facts' },
      h('h2', { id: 'facts' }, 'Numbers'),
      h(
        'dl',
        { class: 'facts' },
        facts.map(({ name, value }) => h('div', {}, h('dt', {}, name), value)),
      ),
      h('p', { class: 'sub' }, 
        'Takeovers, expiries, clock corrections, refusals, cuts and answers with 5xx are counted since the server started.',
      ),
    ),
  );
  let before;
  let beforeAt;

  repeat(
    async () => {
      try {
        const response = await app.client.open('GET', '/metrics', {
          signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
        });
        const now = parse(await response.text());
        const at = performance.now();
        show(now, at);
        [before, beforeAt] = [now, at];
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

  function show(now, at) {
    const info = now.get('lockhouse_build_info')?.[0];
    say(version, info ? `version ${info.labels.version}` : '');
    for (const { read, value } of facts) say(value, count(read(now) ?? 0));
    for (const { given, chart } of charts) {
      chart.node.hidden = !now.has(given.needs);
      if (before) chart.add(given.value(before, now, (at - beforeAt) / 1000));
    }
  }

  root.append(h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Health'), version), wrong, all);
}
