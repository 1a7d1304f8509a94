import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Proxy, Server, begin, browser, eventually, tab, until } from './server.js';

/** Several tabs in one browser: session names, the leader, and the six connections per server. */

const INSECURE = 'app.test';
/** @type {import('playwright-core').Browser} */
let chromium;
before(async () => {
  const args = ['--no-sandbox', `--host-resolver-rules=MAP ${INSECURE} 127.0.0.1`];
  chromium = await browser({ args, ignoreDefaultArgs: ['--disable-back-forward-cache'] });
});
after(() => chromium.close());

/** @param {string} name
 * @param {(context: { server: Server, proxy: Proxy, url: string, person: () => Promise<import('playwright-core').BrowserContext> }) => Promise<void>} tell
 * @param {{ settings?: Record<string, string>, isSecure?: boolean }} [more] */
function story(name, tell, { settings, isSecure = true } = {}) {
  test(name, { timeout: 300_000 }, async () => {
    const server = await Server.start(settings);
    const proxy = await Proxy.to(server.url);
    const people = [];
    const wrong = [];
    try {
      const url = isSecure ? proxy.url : proxy.url.replace('127.0.0.1', INSECURE);
      const person = async () => {
        const context = await chromium.newContext();
        people.push(context);
        await context.addInitScript((isSecure) => {
          if (location.protocol === 'http:' && isSecure !== Boolean(navigator.locks)) throw new Error('Web Locks must exist on secure pages only.');
        }, isSecure);
        context.on('weberror', (error) => wrong.push(String(error.error())));
        return context;
      };
      await tell({ server, proxy, url, person });
      assert.deepEqual(wrong, []);
    } finally {
      await Promise.all(people.map((person) => person.close()));
      proxy.stop();
      await server.stop();
    }
  });
}

/** With and without Web Locks. */
function everywhere(name, tell, more) {
  story(name, tell, more);
  story(`${name}, without TLS`, tell, { ...more, isSecure: false });
}

const acquire = (page) => page.evaluate(() => lock.acquire());
const states = (pages) => Promise.all(pages.map((page) => page.evaluate(() => lock.state)));
const session = (page) => page.evaluate(() => lock.sessionId);
const connected = (page, timeout = 20_000) => page.waitForFunction(() => lock.view.isConnected, null, { timeout });
const held = (proxy) => [...proxy.open].filter(({ path }) => path.startsWith('/api/')).length;
const streams = (proxy) => [...proxy.open].filter(({ path }) => path.startsWith('/api/v1/events')).length;
/** Like `eventually`, with a deadline that is longer than the detection of a silent leader. */
const eventuallySlow = async (look, ms = 40_000) => {
  const end = performance.now() + ms;
  while (performance.now() < end) {
    if (await look()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail('the condition did not become true');
};

/** Adds `skip(ms)` to a page: moves its clocks forward and runs the timers that become due. */
function skippable() {
  let ahead = 0;
  let ids = 0;
  const timers = new Map();
  const now = performance.now.bind(performance);
  const wall = Date.now;
  const set = setTimeout;
  performance.now = () => now() + ahead;
  Date.now = () => wall() + ahead;
  const run = () => {
    for (const [id, { at, act }] of [...timers].sort(([, one], [, other]) => one.at - other.at)) {
      if (at > performance.now() || !timers.delete(id)) continue;
      act();
    }
    set(run, 10);
  };
  run();
  window.setTimeout = (act, ms = 0) => (timers.set(++ids, { at: performance.now() + ms, act }), ids);
  window.clearTimeout = (id) => void timers.delete(id);
  window.skip = (ms) => void (ahead += ms);
}

/** Opens the editor, leaves it, and duplicates the tab there. Then both tabs load the editor. */
async function duplicate(context, url) {
  const one = await tab(context, url, 'alice');
  await acquire(one);
  await one.goto(url + '/readyz');
  const [two] = await Promise.all([context.waitForEvent('page'), one.evaluate(() => void window.open(location.href))]);
  await two.waitForLoadState();
  for (const page of [one, two]) await page.goto(url + '/healthz');
  await Promise.all([one, two].map((page) => begin(page, 'alice')));
  return [one, two];
}

for (const sameUser of ['separate', 'share']) {
  everywhere(`of a tab and its duplicate, one holds the lock (${sameUser})`, async ({ url, person }) => {
    const pages = await duplicate(await person(), url);
    await Promise.all(pages.map(acquire));
    await eventually(async () => (await states(pages)).sort().join() === 'held,held-by-other');
    assert.notEqual(await session(pages[0]), await session(pages[1]));
    // This does not change.
    await Promise.all(pages.map((page) => page.evaluate(() => lock.refresh())));
    assert.equal((await states(pages)).sort().join(), 'held,held-by-other');
  }, { settings: { LOCKHOUSE_LOCKS_SAME_USER: sameUser } });
}

story('a page restored from the back-forward cache takes a new session if its duplicate has the old one', async ({ url, person }) => {
  const context = await person();
  await context.route('**/app', (route) => route.fulfill({ contentType: 'text/html', body: '<title>An app</title>' }));
  const one = await tab(context, url, 'alice', {}, 'design-42', '/app');
  // Playwright cannot observe a restored page, so the page reports its session.
  await one.evaluate(() => {
    const names = new BroadcastChannel('test');
    window.addEventListener('pageshow', ({ persisted }) => persisted && setInterval(() => lock.state !== 'unknown' && names.postMessage(lock.sessionId), 100));
  });
  await acquire(one);
  const name = await session(one);
  await one.goto(url + '/readyz');
  const [two] = await Promise.all([context.waitForEvent('page'), one.evaluate(() => void window.open('/healthz'))]);
  await begin(two, 'alice');
  await until(two, 'free');
  assert.equal(await session(two), name);
  const other = two.evaluate(() => new Promise((resolve) => (new BroadcastChannel('test').onmessage = ({ data }) => resolve(data))));
  await one.evaluate(() => history.back()).catch(() => {});
  assert.notEqual(await other, name);
  assert.equal(await session(two), name);
});

for (const settings of [{}, { LOCKHOUSE_LOCKS_SAME_USER: 'separate', LOCKHOUSE_LOCKS_TAKEOVER: 'nobody' }]) {
  everywhere(`after a crash the tab renews its lease (${settings.LOCKHOUSE_LOCKS_SAME_USER ?? 'share'})`, async ({ url, person }) => {
    const context = await person();
    const page = await tab(context, url, 'alice');
    await acquire(page);
    const before = await page.evaluate(() => [lock.sessionId, lock.fence]);
    // Playwright cannot use a crashed page again, but the browser can reload it.
    const devtools = await context.newCDPSession(page);
    const crashed = page.waitForEvent('crash');
    devtools.send('Page.crash').catch(() => {});
    await crashed;
    await devtools.send('Page.reload');
    const after = await eventually(async () => {
      const { result } = await devtools.send('Runtime.evaluate', {
        awaitPromise: true, returnByValue: true,
        expression: `(async () => {
          const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
          window.lock ??= new WorkspaceLock(new Lockhouse({ userId: 'alice' }), 'design-42');
          return [await lock.acquire(), lock.sessionId, lock.fence];
        })()`,
      }).catch(() => ({ result: {} }));
      return result.value;
    });
    assert.deepEqual(after, ['held', ...before]);
  }, { settings });
}

story('a leader whose token has expired passes the lead on', async ({ server, proxy, url, person }) => {
  const make = (name) => server.run('token', 'create', '--scope', 'user', '--user', 'alice', '--name', name);
  const context = await person();
  const pages = [];
  for (const token of [await make('first'), await make('second')]) {
    const page = await context.newPage();
    pages.push(page);
    await page.goto(url + '/healthz');
    await page.evaluate(async (token) => {
      const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
      window.asked = [];
      window.lock = new WorkspaceLock(new Lockhouse({ userId: 'alice', token: (why) => (asked.push(why?.refused ?? false), token) }), 'design-42');
    }, token);
    await connected(page);
  }
  await eventually(() => streams(proxy) === 1);
  // The first tab leads. Its token expires, and soon its stream ends.
  const [first, second] = pages;
  const [id] = (await server.run('token', 'list')).split('\n').find((line) => line.includes('name="first"')).split(' ');
  await server.run('token', 'revoke', id);
  await first.waitForFunction(() => asked.includes(true), null, { timeout: 40_000 });
  await connected(second);
  const bob = await server.run('token', 'create', '--scope', 'user', '--user', 'bob', '--name', 'bob');
  await fetch(server.url + '/api/v1/workspaces/design-42/lock', { method: 'POST', headers: { Authorization: 'Bearer ' + bob } });
  await until(second, 'held-by-other');
  // It receives the event from the other tab.
  await until(first, 'held-by-other');
  // No shared or stored name contains the token.
  for (const page of pages) {
    const kept = await page.evaluate(async () => JSON.stringify([await navigator.locks.query(), { ...sessionStorage }, { ...localStorage }]));
    assert.match(kept, /lockhouse 3 .+alice.+user/);
    assert.ok(!kept.includes('lh_'), kept);
  }
}, { settings: { LOCKHOUSE_AUTH_MODE: 'token' } });

everywhere('a leader that is blocked by an alert is replaced', async ({ server, proxy, url, person }) => {
  const context = await person();
  const first = await tab(context, url, 'alice');
  await connected(first);
  const second = await context.newPage();
  await second.addInitScript(skippable);
  await second.goto(url + '/healthz');
  await begin(second, 'alice');
  await connected(second);
  const stopped = first.waitForEvent('dialog');
  await first.evaluate(() => void setTimeout(() => alert('Stop'), 0));
  const alert = await stopped;
  await second.evaluate(() => skip(41_000));
  await second.waitForFunction(() => !lock.view.isConnected);
  await connected(second);
  await server.acquire('bob', 'design-42');
  await until(second, 'held-by-other');
  await alert.accept();
  // The first tab has resigned, and receives events from the new leader.
  await until(first, 'held-by-other');
  await eventually(() => streams(proxy) === 1);
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/design-42/lock');
  await Promise.all([until(first, 'free'), until(second, 'free')]);
  await Promise.all([connected(first), connected(second)]);
});

story('without a connection a lock is not shown as free', async ({ server, url, person }) => {
  const alice = await tab(await person(), url, 'alice');
  await until(alice, 'free');
  await connected(alice);
  await server.kill();
  await until(alice, 'unknown', 40_000);
  await server.restart();
  await until(alice, 'free', 40_000);
});

everywhere('many waiting tabs leave connections for heartbeats and saves', async ({ server, proxy, url, person }) => {
  const context = await person();
  const pages = [];
  for (let more = 0; more < 8; more++) pages.push(await tab(context, url, 'alice'));
  const [editor, ...others] = pages;
  await acquire(editor);
  // Each waits for a different workspace, which bob has locked.
  for (const [index, page] of others.entries()) {
    await server.acquire('bob', 'other-' + index);
    await page.evaluate(async (id) => {
      const { WorkspaceLock } = await import('/client/index.js');
      lock.close();
      window.lock = new WorkspaceLock(client, id);
      lock.wait();
    }, 'other-' + index);
  }
  for (const page of pages) await connected(page, 40_000);
  const places = () => Promise.all(others.map((page) => page.evaluate(() => lock.view.hasPlace)));
  await eventuallySlow(async () => (await places()).filter(Boolean).length === 2);
  await eventuallySlow(() => held(proxy) === 3);
  for (const page of pages) {
    const tookMs = await page.evaluate(async () => {
      const began = performance.now();
      await (await fetch('/healthz?' + began)).text();
      return performance.now() - began;
    });
    assert.ok(tookMs < 20_000, `it took ${tookMs} ms`);
  }
  const beat = editor.waitForResponse('**/heartbeat');
  await editor.evaluate(() => lock.refresh());
  await beat;
  assert.equal(await editor.evaluate(() => lock.state), 'held');
  // A released lock goes to the tab that waits for it, with or without a place.
  for (const index of others.keys()) {
    await server.ask('bob', 'DELETE', `/api/v1/workspaces/other-${index}/lock`);
    await until(others[index], 'held');
  }
  assert.ok(held(proxy) <= 3);
});

story('two users of one browser do not share a stream', async ({ proxy, url, person }) => {
  const context = await person();
  const pages = [];
  for (const user of ['alice', 'alice', 'bob', 'bob']) pages.push(await tab(context, url, user));
  for (const page of pages) await connected(page);
  await eventually(() => streams(proxy) === 2);
});

story('tokens with different scopes do not share a stream', async ({ server, proxy, url, person }) => {
  const context = await person();
  for (const scope of ['user', 'user', 'read']) {
    const token = await server.run('token', 'create', '--scope', scope, '--user', 'alice', '--name', scope);
    const page = await context.newPage();
    await page.goto(url + '/healthz');
    await page.evaluate(async (token) => {
      const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
      window.lock = new WorkspaceLock(new Lockhouse({ userId: 'alice', token }), 'design-42');
    }, token);
    await connected(page);
  }
  await eventually(() => streams(proxy) === 2);
}, { settings: { LOCKHOUSE_AUTH_MODE: 'token' } });
