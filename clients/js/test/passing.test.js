import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Proxy, Server, begin, browser, eventually, tab, until } from './server.js';

/** Temporary refusals (of a proxy, rate limits), and the release when a page closes. */

/** @type {import('playwright-core').Browser} */
let chromium;
before(async () => (chromium = await browser()));
after(() => chromium.close());

function story(name, tell, settings) {
  test(name, { timeout: 300_000 }, async () => {
    const server = await Server.start(settings);
    const proxy = await Proxy.to(server.url);
    const people = [];
    try {
      await tell({ server, proxy, person: async () => (people.push(await chromium.newContext()), people.at(-1)) });
    } finally {
      await Promise.all(people.map((person) => person.close()));
      proxy.stop();
      await server.stop();
    }
  });
}

const acquire = (page) => page.evaluate(() => lock.acquire());

story('a page with 15 locks reclaims all of them after sleep, with a rate limit of two calls a second', async ({ server, person }) => {
  // A separate browser, whose processes are stopped, as during a computer's sleep.
  const own = await browser();
  try {
    const alice = await tab(await own.newContext(), server.url, 'alice');
    await alice.evaluate(async () => {
      const { WorkspaceLock } = await import('/client/index.js');
      await lock.close();
      window.locks = Array.from({ length: 15 }, (_, index) => new WorkspaceLock(client, 'sheet-' + index, { ttlMs: 30_000 }));
      for (const lock of locks) while ((await lock.acquire().catch(() => '')) !== 'held');
    });
    const fences = await alice.evaluate(() => locks.map((lock) => lock.fence));
    assert.ok(!fences.includes(null));
    const { processInfo } = await (await own.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
    const signal = (name) => processInfo.filter(({ type }) => type === 'renderer').forEach(({ id }) => process.kill(id, name));
    signal('SIGSTOP');
    const locked = async () => (await server.ask('root', 'GET', '/api/v1/locks')).locks.length;
    for (let left = 15; left; left = await locked()) await new Promise((resolve) => setTimeout(resolve, 1_000));
    signal('SIGCONT');
    await alice.waitForFunction(() => locks.some((lock) => lock.state === 'lost'));
    await alice.waitForFunction(() => locks.every((lock) => lock.state === 'held'), null, { timeout: 60_000 });
    assert.deepEqual(await alice.evaluate(() => locks.map((lock) => lock.fence)), fences, 'nobody came between');
  } finally {
    await own.close();
  }
}, { LOCKHOUSE_LIMITS_REQUESTS_PER_SECOND: '2' });

story('a proxy\'s error responses during a deploy do not end a lease', async ({ proxy, person }) => {
  const answers = {
    '429': { status: 429, headers: { 'Retry-After': '1' }, body: 'Slow down' },
    '500': { status: 500 },
    '520': { status: 520 },
    '401': { status: 401, headers: { 'Content-Type': 'text/html' } },
    '403': { status: 403, headers: { 'Content-Type': 'text/html' } },
    '404': { status: 404, headers: { 'Content-Type': 'application/json' }, body: '{"code":"not_found"}' },
  };
  const context = await person();
  const pages = [];
  for (const user of Object.keys(answers)) {
    const page = await tab(context, proxy.url, user, { ttlMs: 3_000 }, 'sheet-' + user);
    await acquire(page);
    pages.push(page);
  }
  const fences = await Promise.all(pages.map((page) => page.evaluate(() => lock.fence)));
  proxy.answer = ({ headers }) => answers[headers['x-user-id']];
  await new Promise((resolve) => setTimeout(resolve, 7_000));
  for (const page of pages) await until(page, 'lost');
  const lost = await Promise.all(pages.map((page) => page.evaluate(() => [lock.state, lock.view.loss?.comesBack])));
  assert.deepEqual(lost, pages.map(() => ['lost', true]));
  proxy.answer = () => undefined;
  for (const page of pages) await until(page, 'held', 90_000);
  assert.deepEqual(await Promise.all(pages.map((page) => page.evaluate(() => lock.fence))), fences);
});

story('Retry-After is respected, up to one minute', async ({ proxy, person }) => {
  const alice = await tab(await person(), proxy.url, 'alice');
  const pauses = await alice.evaluate(async () => {
    const [{ backoff }, { Refusal }] = [await import('/client/retry.js'), await import('/client/refusal.js')];
    return [2_000, 3_600_000].map((ms) => backoff(0, new Refusal({ code: 'rate_limited', detail: '', status: 429 }, ms)));
  });
  assert.ok(pauses[0] >= 2_000 && pauses[0] < 3_000 && pauses[1] >= 60_000 && pauses[1] < 61_000, String(pauses));
  let asked = 0;
  proxy.answer = ({ path }) => (path.endsWith('/busy/lock') && !asked++ ? { status: 503, headers: { 'Retry-After': new Date(Date.now() + 3_000).toUTCString() } } : undefined);
  const tookMs = await alice.evaluate(async () => {
    const began = performance.now();
    await client.read('busy');
    return performance.now() - began;
  });
  assert.ok(tookMs >= 1_500, `it took ${tookMs} ms`);
});

story('a refused token is renewed once for all refused requests, and a second refusal is final', async ({ server, person }) => {
  const good = await server.run('token', 'create', '--scope', 'user', '--user', 'alice', '--name', 'tab');
  const page = await (await person()).newPage();
  await page.goto(server.url + '/healthz');
  const found = await page.evaluate(async (good) => {
    const { Lockhouse } = await import('/client/index.js');
    let kept = 'old';
    let renewed = 0;
    const token = async ({ refused = false } = {}) => {
      if (refused) { renewed++; kept = good; }
      return kept;
    };
    const client = new Lockhouse({ userId: 'alice', token });
    const read = await Promise.all([1, 2, 3].map(() => client.read('design-42')));
    let asked = 0;
    const other = new Lockhouse({ userId: 'alice', token: () => (asked++, 'bad') });
    const refused = await other.read('design-42').catch(({ code }) => code);
    return { read: read.map(({ locked }) => locked), renewed, refused, asked };
  }, good);
  assert.deepEqual(found, { read: [false, false, false], renewed: 1, refused: 'unauthenticated', asked: 2 });
}, { LOCKHOUSE_AUTH_MODE: 'token' });

const isFree = (server) => eventually(async () => !(await server.ask('root', 'GET', '/api/v1/workspaces/design-42/lock')).locked);

story('a closing page releases its lock with beacons blocked, without a preflight', async ({ server, proxy, person }) => {
  // The app and Lockhouse have different origins.
  proxy.keepsOrigin = true;
  const alice = await (await person()).newPage();
  await alice.addInitScript(() => (navigator.sendBeacon = () => true));
  await alice.goto(server.url + '/healthz');
  server.settings = { LOCKHOUSE_SERVER_CORS_ORIGINS: server.url };
  await server.kill();
  await server.restart();
  await alice.evaluate(async (url) => {
    const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
    window.lock = new WorkspaceLock(new Lockhouse({ userId: 'alice', url }), 'design-42');
  }, proxy.url);
  assert.equal(await acquire(alice), 'held');
  await alice.close({ runBeforeUnload: true });
  await isFree(server);
  const released = proxy.asked.filter(({ path }) => path.endsWith('/release'));
  assert.deepEqual(released.map(({ method, headers }) => [method, headers['content-type'], headers['x-user-id']]), [['POST', 'text/plain;charset=UTF-8', undefined]]);
});

story('a closing page without beacons or keepalive requests causes no error', async ({ server, person }) => {
  const cripples = [
    () => { delete Navigator.prototype.sendBeacon; },
    () => { delete Request.prototype.keepalive; },
    () => { delete Request.prototype.keepalive; delete Navigator.prototype.sendBeacon; },
    () => { delete Request.prototype.keepalive; navigator.sendBeacon = () => { throw new Error('Blocked'); }; },
  ];
  for (const [index, cripple] of cripples.entries()) {
    const context = await person();
    await context.addInitScript(cripple);
    const alice = await tab(context, server.url, 'alice');
    const wrong = [];
    context.on('weberror', (error) => wrong.push(String(error.error())));
    assert.equal(await acquire(alice), 'held');
    await alice.goto(server.url + '/readyz');
    // If nothing can be sent, the lease expires, or the reloaded tab renews it before.
    if (index < 2) await isFree(server);
    await begin(alice, 'alice');
    assert.equal(await acquire(alice), 'held');
    await alice.evaluate(() => lock.release());
    assert.deepEqual(wrong, []);
  }
});
