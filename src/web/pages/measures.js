// Describes the server's metrics: each number has a label, and a warning where its value is unusual.

import { bytes, count, seconds } from './format.js';
import { growth, observed, sum } from './metrics.js';

const REQUESTS = 'lockhouse_http_requests_total';
const COMMIT = 'lockhouse_writer_commit_duration_seconds';
const BATCH = 'lockhouse_writer_batch_size';

/** The current value of a metric. */
const gauge = (title, about, format, name, worry) => ({
  title,
  about,
  format,
  needs: name,
  value: (_, after) => sum(after, name),
  worry,
});

const rate = (grown, passed) => (grown === undefined ? undefined : grown / passed);
const finite = (number) => (Number.isFinite(number) ? number : undefined);
/** The warning for a value above the limit. */
const above = (limit, words) => (value) => (value > limit ? words : undefined);

/** A value computed from two readings, `passed` seconds apart, if the server has all that it `needs`. `worry` returns the
 * warning for an unusual value. */
export const CHARTS = [
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
    worry: above(0.1, 'Slow: each change waits for the disk that long.'),
  },
  {
    title: 'Commit time, 99th percentile',
    about: '99 of 100 took less',
    format: seconds,
    needs: COMMIT + '_count',
    value: (before, after) => finite(observed(before, after, COMMIT).p99),
    worry: above(0.25, 'Slow now and then: the disk is busy with something else.'),
  },
  {
    title: 'Writes per commit',
    about: 'mean: how many share one',
    format: count,
    needs: BATCH + '_count',
    value: (before, after) => observed(before, after, BATCH).mean,
  },
  gauge('Queue', 'writes that wait for the writer', count, 'lockhouse_writer_queue_depth',
    above(500, 'More changes come than the disk takes. They wait, and some may be answered with 503.')),
  gauge('Live locks', 'leases that have not ended', count, 'lockhouse_live_locks'),
  gauge('Database', 'the size of the file', bytes, 'lockhouse_database_size_bytes'),
  gauge('Write-ahead log', 'the size of the file', bytes, 'lockhouse_wal_size_bytes',
    above(256 * 1024 * 1024, 'It is not folded into the database: a reader or a backup keeps it open, or the disk is full.')),
];

/** Normal reasons for the end of a connection. */
const USUAL = ['idle', 'stopping'];

/** Single numbers: label, reading, description, and the warning for a value above zero. */
export const FACTS = [
  ['Connections', (now) => sum(now, 'lockhouse_connections'), 'clients that are connected'],
  ['Requests that wait', (now) => sum(now, 'lockhouse_held_requests'), 'for a lock or an event, as they should'],
  ['Waiting for a lock', (now) => sum(now, 'lockhouse_waiters'), 'in line now'],
  ['Following the events', (now) => sum(now, 'lockhouse_followers'), 'streams that are open now'],
  ['Takeovers', (now) => sum(now, 'lockhouse_takeovers_total'), 'live locks that somebody took over, since the start'],
  ['Expiries', (now) => sum(now, 'lockhouse_expiries_total'), 'leases that nobody renewed, since the start: a closed laptop, a crash'],
  [
    'Clock corrections',
    (now) => sum(now, 'lockhouse_clock_corrections_total'),
    'times that this machine’s clock was set, since the start',
    'The clock of the server was set while it ran. No lease became longer or shorter. If it grows, look at the time synchronisation of the machine.',
  ],
  [
    'Refused unread',
    (now) => sum(now, 'lockhouse_refusals_total'),
    'requests that were no good HTTP or broke a limit, since the start',
    'Somebody sends what is no good request: a scanner, or a client with a fault. The log has the reasons. Nobody else is affected.',
  ],
  [
    'Cut off',
    (now) => sum(now, 'lockhouse_cuts_total', ({ reason }) => !USUAL.includes(reason)),
    'connections that were ended because of a limit, since the start',
    'Clients did not read their answers, or there were more than the limits allow. The log has the reasons.',
  ],
  [
    'Answers with 5xx',
    (now) => sum(now, REQUESTS, ({ status }) => status >= '500'),
    'requests that the server could not carry out, since the start',
    'The server could not do what it was asked. The log says why, with the id of each request.',
  ],
  [
    'Failed checkpoints',
    (now) => sum(now, 'lockhouse_checkpoint_failures_total'),
    'times that the log could not be folded into the database, since the start',
    'The write-ahead log grows. Look whether the disk is full or faulty: the log of the server says which.',
  ],
].map(([name, read, about, worry]) => ({ name, read: (now) => read(now) ?? 0, about, worry }));
