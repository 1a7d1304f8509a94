import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { Server, SilentProxy, begin, browser, eventually, tab, until } from './server.js';

/** @type {import('playwright-core').Browser} */
let chromium;
before(async () => (chromium = await browser()));
after(() => chromium.close());

/** @param {string} name @param {(context: { server: Server, person: () => Promise<import('playwright-core').BrowserContext> }) => Promise<void>} story
 * @param {Record<string, string>} [settings] */
function story(name, tell, settings) {
  test(name, { timeout: 300_000 }, async () => {
    const server = await Server.start(settings);
    const people = [];
    try {
      // Each person has a separate browser.
      await tell({ server, person: async () => (people.push(await chromium.newContext()), people.at(-1)) });
    } finally {
      await Promise.all(people.map((person) => person.close()));
      await server.stop();
    }
  });
}

const acquire = (page) => page.evaluate(() => lock.acquire());
const held = (page) => page.evaluate(() => recorded.filter(([type]) => type === 'held').map(([, detail]) => detail));
const states = (page) => page.evaluate(() => recorded.filter(([type]) => type === 'state').map(([, state]) => state));

story('a second person sees the holder, and is granted the lock on release', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await until(bob, 'free');
  assert.equal(await acquire(alice), 'held');
  await until(bob, 'held-by-other');
  assert.equal(await acquire(bob), 'held-by-other');
  assert.deepEqual(
    await bob.evaluate(() => [lock.view.holder.locked_by_name, lock.view.isOtherTab, lock.fence]),
    ['ALICE', false, null],
  );
  const shown = ['fence', 'hasAsked', 'hasPlace', 'holder', 'isConnected', 'isOtherTab', 'kind', 'knock', 'loss', 'mayTakeOver', 'state', 'waiting'];
  assert.deepEqual(await bob.evaluate(() => Object.keys(lock.view).sort()), shown);
  const waits = bob.evaluate(() => lock.wait());
  await until(bob, 'waiting');
  await alice.evaluate(() => lock.release());
  assert.equal(await waits, 'held');
  await until(alice, 'held-by-other');
});

story('a holder learns of a takeover, and by whom, from an event', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  await until(alice, 'held');
  await alice.waitForFunction(() => lock.view.isConnected);
  const began = Date.now();
  assert.equal(await bob.evaluate(() => lock.takeOver()), 'held');
  await until(alice, 'lost');
  // The next heartbeat would come after more than a minute.
  const took = Date.now() - began;
  assert.ok(took < 30_000, `it took ${took} ms`);
  const [[, loss]] = await alice.evaluate(() => recorded.filter(([type]) => type === 'lost'));
  assert.ok(Math.abs(Date.parse(loss.at) - began) < 60_000, loss.at);
  delete loss.at;
  assert.deepEqual(loss, { reason: 'taken_over', by: { userId: 'bob', name: 'BOB' }, changed: true, comesBack: false });
  await assert.rejects(alice.evaluate(() => lock.fetch('/save')), /NotHeld/);
});

story('the holder hands the lock over to the user who asks', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  const asks = bob.evaluate(() => lock.ask('two minutes?'));
  await alice.waitForFunction(() => lock.view.knock?.message === 'two minutes?');
  assert.equal(await alice.evaluate(() => recorded.find(([type]) => type === 'knock')[1].user_id), 'bob');
  assert.ok(await bob.evaluate(() => lock.view.hasAsked));
  await alice.evaluate(() => lock.handOver());
  assert.equal(await asks, 'held');
  await until(alice, 'held-by-other');
  assert.ok(!(await alice.evaluate(() => recorded.some(([type]) => type === 'lost'))), 'what one gives away one has not lost');
  // The lease is renewed from now on.
  const { lock } = await server.acquire('carol', 'design-42');
  assert.ok(lock.expires_in_ms > 60_000 && lock.locked_by_user_id === 'bob', JSON.stringify(lock));
});

story('the holder declines, and the waiting user keeps the place in the queue', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  const asks = bob.evaluate(() => lock.ask());
  await alice.waitForFunction(() => lock.view.knock);
  await alice.evaluate(() => lock.decline());
  await bob.waitForFunction(() => recorded.some(([type]) => type === 'declined'));
  const { againInMs } = await bob.evaluate(() => recorded.find(([type]) => type === 'declined')[1]);
  assert.ok(againInMs > 50_000 && againInMs <= 60_000, `${againInMs} ms`);
  // The place in the queue stays.
  assert.equal(await bob.evaluate(() => lock.state), 'waiting');
  await bob.evaluate(() => lock.cancel());
  assert.equal(await asks, 'held-by-other');
  assert.equal(await alice.evaluate(() => lock.view.knock), null);
  assert.equal(await alice.evaluate(() => lock.state), 'held');
});

story('the holder learns that an administrator revoked the lock', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await acquire(alice);
  await alice.waitForFunction(() => lock.view.isConnected);
  await server.ask('root', 'DELETE', '/api/v1/workspaces/design-42/lock?force=true');
  await until(alice, 'lost');
  assert.deepEqual(await alice.evaluate(() => [lock.view.loss.reason, lock.view.loss.by.userId]), ['revoked', 'root']);
});

story('a closed tab releases its lock at once', async ({ server, person }) => {
  const context = await person();
  const alice = await tab(context, server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  const waits = bob.evaluate(() => lock.wait());
  await until(bob, 'waiting');
  await alice.close({ runBeforeUnload: true });
  assert.equal(await waits, 'held');
});

story('a reloaded page keeps its session', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice', { releaseOnClose: false });
  await acquire(alice);
  const fence = await alice.evaluate(() => lock.fence);
  await alice.reload();
  await begin(alice, 'alice', {});
  await until(alice, 'free');
  assert.equal(await acquire(alice), 'held');
  assert.equal(await alice.evaluate(() => lock.fence), fence);
});

story('a duplicated tab has a session of its own', async ({ server, person }) => {
  const context = await person();
  const one = await tab(context, server.url, 'alice');
  await acquire(one);
  // window.open copies sessionStorage.
  const [two] = await Promise.all([context.waitForEvent('page'), one.evaluate(() => void window.open('/healthz'))]);
  await begin(two, 'alice', {});
  const session = (page) => page.evaluate(() => lock.sessionId);
  await until(two, 'held-by-other');
  assert.notEqual(await session(one), await session(two));
  // It uses the stream of the first tab.
  await two.waitForFunction(() => lock.view.isConnected);
  assert.equal(await acquire(two), 'held-by-other', 'nothing is taken from the other tab unasked');
  assert.equal(await two.evaluate(() => lock.view.isOtherTab), true);
  assert.equal(await two.evaluate(() => lock.takeOver()), 'held');
  await until(one, 'held-by-other');
  assert.equal(await one.evaluate(() => lock.view.isOtherTab), true);
  assert.equal(await one.evaluate(() => lock.fence), null);
});

story('the tabs of one person share one stream, and another tab leads when the leader closes', async ({ server, person }) => {
  const context = await person();
  const tabs = [];
  for (const id of ['one', 'two', 'three']) tabs.push(await tab(context, server.url, 'alice', {}, id));
  const streams = async () => {
    const text = await (await fetch(server.url + '/metrics', { headers: { 'X-User-Id': 'root' } })).text();
    return Number(/^lockhouse_followers (\d+)$/m.exec(text)[1]);
  };
  for (const page of tabs) await page.waitForFunction(() => lock.view.isConnected);
  // A new workspace restarts the stream.
  await eventually(async () => (await streams()) === 1);
  await server.acquire('bob', 'three');
  await until(tabs[2], 'held-by-other');
  await tabs[0].close();
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/three/lock');
  await until(tabs[2], 'free');
  await server.acquire('bob', 'two');
  await until(tabs[1], 'held-by-other');
  await eventually(async () => (await streams()) === 1);
});

story('a lease ends on the client when the network is silent', async ({ server, person }) => {
  const wire = await SilentProxy.to(server.url);
  try {
    const alice = await tab(await person(), wire.url, 'alice', { ttlMs: 5_000 });
    await acquire(alice);
    wire.isSilent = true;
    const lost = await alice.evaluate(
      () => new Promise((resolve) => lock.addEventListener('lost', ({ detail }) => resolve({ detail, fence: lock.fence }))),
    );
    assert.ok(lost.detail.at, 'when it was lost is said');
    delete lost.detail.at;
    assert.deepEqual(lost, { detail: { reason: 'expired', by: null, changed: false, comesBack: true }, fence: null });
    // The server's lease ends no earlier than the client's.
    const bob = await tab(await person(), server.url, 'bob');
    assert.equal(await bob.evaluate(() => lock.wait()), 'held');
    wire.isSilent = false;
    wire.sockets.forEach((socket) => socket.destroy());
    await alice.waitForFunction(() => lock.view.loss?.by?.userId === 'bob');
    assert.equal(await alice.evaluate(() => lock.state), 'lost');
  } finally {
    wire.stop();
  }
}, { LOCKHOUSE_LOCKS_MIN_TTL: '500ms' });

story('after a network failure an uncontested lease is reclaimed', async ({ server, person }) => {
  const wire = await SilentProxy.to(server.url);
  try {
    const alice = await tab(await person(), wire.url, 'alice', { ttlMs: 5_000 });
    await acquire(alice);
    const fence = await alice.evaluate(() => lock.fence);
    wire.isSilent = true;
    await until(alice, 'lost');
    wire.isSilent = false;
    wire.sockets.forEach((socket) => socket.destroy());
    await until(alice, 'held');
    assert.equal(await alice.evaluate(() => lock.fence), fence);
    assert.deepEqual(await held(alice), [{ fence, isNew: true }, { fence, isNew: false }], 'nothing has to be read anew');
  } finally {
    wire.stop();
  }
});

story('a lease that another tab of the same person held meanwhile counts as new', async ({ server, person }) => {
  const context = await person();
  const one = await tab(context, server.url, 'alice');
  await acquire(one);
  const two = await tab(context, server.url, 'alice');
  await until(two, 'held-by-other');
  await two.evaluate(() => lock.takeOver());
  await until(one, 'held-by-other');
  assert.equal(await one.evaluate(() => lock.takeOver()), 'held');
  const fence = await one.evaluate(() => lock.fence);
  // They share the lease.
  assert.deepEqual(await held(one), [{ fence, isNew: true }, { fence, isNew: true }]);
  await one.evaluate(() => lock.release());
  await acquire(one);
  assert.equal((await held(one)).at(-1).isNew, true);
});

story('a frozen tab does not hold a lease that has ended', async ({ server, person }) => {
  // A separate browser, whose renderer processes are stopped: no timers, no answers.
  const own = await browser();
  try {
    const alice = await tab(await own.newContext(), server.url, 'alice', { ttlMs: 3_000 });
    await acquire(alice);
    const { processInfo } = await (await own.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
    const signal = (name) => processInfo.filter(({ type }) => type === 'renderer').forEach(({ id }) => process.kill(id, name));
    signal('SIGSTOP');
    const bob = await tab(await person(), server.url, 'bob');
    assert.equal(await bob.evaluate(() => lock.wait()), 'held');
    signal('SIGCONT');
    await alice.waitForFunction(() => lock.view.loss?.by?.userId === 'bob');
    assert.deepEqual(await alice.evaluate(() => [lock.state, lock.fence]), ['lost', null]);
    // At no time did both hold the lock.
    assert.equal(await bob.evaluate(() => lock.state), 'held');
    assert.equal(await alice.evaluate(() => lock.takeOver()), 'held');
  } finally {
    await own.close();
  }
});

story('after a freeze the event stream resumes at the last revision', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await until(alice, 'free');
  await alice.waitForFunction(() => lock.view.isConnected);
  // The events that a browser sends before and after a freeze.
  await alice.evaluate(() => document.dispatchEvent(new Event('freeze')));
  await alice.waitForFunction(() => !lock.view.isConnected);
  await server.acquire('bob', 'design-42');
  await alice.evaluate(() => document.dispatchEvent(new Event('resume')));
  await until(alice, 'held-by-other');
});

story('a lease survives a restart of the server', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice', { ttlMs: 3_000 });
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  const fence = await alice.evaluate(() => lock.fence);
  await server.kill();
  await bob.waitForFunction(() => !lock.view.isConnected);
  await server.restart();
  await bob.waitForFunction(() => lock.view.isConnected);
  await until(alice, 'held');
  assert.equal(await alice.evaluate(() => lock.fence), fence);
  await alice.evaluate(() => lock.release());
  await until(bob, 'free');
});

story('a lease survives a short time offline', async ({ server, person }) => {
  const context = await person();
  const alice = await tab(context, server.url, 'alice', { ttlMs: 2_000 });
  await acquire(alice);
  await context.setOffline(true);
  await until(alice, 'lost');
  await context.setOffline(false);
  await until(alice, 'held');
});

story('a page restored from the back-forward cache resumes', async ({ server }) => {
  const own = await browser({ ignoreDefaultArgs: ['--disable-back-forward-cache'] });
  try {
    const context = await own.newContext();
    // The server's pages forbid the cache; the app's own allow it.
    await context.route('**/app', (route) => route.fulfill({ contentType: 'text/html', body: '<title>An app</title>' }));
    const alice = await tab(context, server.url, 'alice', {}, 'design-42', '/app');
    await alice.evaluate(() => {
      // Playwright cannot observe a restored page, so the page reports itself.
      window.addEventListener('pageshow', ({ persisted }) => persisted && client.acquire('came back'));
    });
    await acquire(alice);
    const read = async (id) => (await server.ask('bob', 'GET', `/api/v1/workspaces/${encodeURIComponent(id)}/lock`)).lock;
    const before = await read('design-42');
    await alice.goto(server.url + '/readyz');
    // The lock is released.
    await eventually(async () => !(await read('design-42')));
    await alice.evaluate(() => history.back()).catch(() => {});
    await eventually(() => read('came back'));
    const after = await eventually(() => read('design-42'));
    assert.ok(after.fence > before.fence && after.session_id === before.session_id, 'nobody came between');
  } finally {
    await own.close();
  }
});

story('a save names the lease, and is not sent without one', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await acquire(alice);
  const gate = (page) => page.evaluate(() => lock.fetch('/api/v1/gate', { headers: { 'X-User-Id': 'alice' } }).then(({ status }) => status, ({ name }) => name));
  assert.equal(await gate(alice), 204);
  await alice.evaluate(() => lock.release());
  assert.equal(await gate(alice), 'NotHeld');
});

story('a wait longer than the server\'s limit keeps the place in the queue', async ({ server, person }) => {
  await server.acquire('alice', 'design-42');
  const bob = await tab(await person(), server.url, 'bob');
  const waits = bob.evaluate(() => lock.wait());
  await until(bob, 'waiting');
  // In the queue behind bob, for several of his requests.
  const carol = await tab(await person(), server.url, 'carol');
  let asked = 0;
  bob.on('request', (request) => (asked += request.method() === 'POST' ? 1 : 0));
  while (asked < 3) await bob.waitForRequest((request) => request.method() === 'POST');
  const also = carol.evaluate(() => lock.wait());
  await until(carol, 'waiting');
  while (asked < 6) await bob.waitForRequest((request) => request.method() === 'POST');
  await server.ask('alice', 'DELETE', '/api/v1/workspaces/design-42/lock');
  assert.equal(await waits, 'held');
  await bob.evaluate(() => lock.release());
  assert.equal(await also, 'held');
  // A slow machine must send the next request before this one ends.
}, { LOCKHOUSE_LOCKS_MAX_WAIT: '3s' });

story('a refusal is final, and a request without an answer is retried', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  let asked = 0;
  alice.on('request', (request) => (asked += request.url().includes('/nothing') ? 1 : 0));
  const refused = await alice.evaluate(() => client.request('GET', '/api/v1/nothing').catch(({ code, status }) => [code, status]));
  assert.deepEqual([refused, asked], [['not_found', 404], 1]);
  await server.kill();
  const heard = alice.evaluate(() => client.read('design-42'));
  await alice.waitForEvent('requestfailed');
  await server.restart();
  assert.equal((await heard).locked, false);
});

story('the user id is required, and a failing token function is logged once', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const recorded = [];
  alice.on('console', (message) => recorded.push(message.text()));
  const [refused, tries] = await alice.evaluate(async () => {
    const { Lockhouse } = await import('/client/index.js');
    const refused = await Promise.resolve().then(() => new Lockhouse({})).catch(({ message }) => message);
    let tries = 0;
    const token = () => { tries++; if (tries < 3) throw new Error('The back end is away.'); return 'alice'; };
    await new Lockhouse({ userId: 'alice', token }).read('design-42').catch(() => {});
    return [refused, tries];
  });
  assert.equal(refused, 'userId is missing: who is calling?');
  assert.equal(tries, 3);
  assert.deepEqual(recorded.filter((text) => text.includes('has no token')).length, 1, recorded.join());
});

story('the state is right after any order of actions', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const read = () => server.ask('root', 'GET', '/api/v1/workspaces/design-42/lock');
  // Two calls at once.
  assert.deepEqual(await alice.evaluate(() => Promise.all([lock.acquire(), lock.acquire()])), ['held', 'held']);
  assert.equal((await read()).lock.fence, await alice.evaluate(() => lock.fence));
  // A release during an acquire.
  await alice.evaluate(() => lock.release());
  await alice.evaluate(() => { const asked = lock.acquire(); return Promise.all([asked, lock.release()]); });
  await eventually(async () => !(await read()).locked);
  assert.equal(await alice.evaluate(() => lock.state), 'free');
  // Wait, cancel, wait.
  await server.acquire('bob', 'design-42');
  await until(alice, 'held-by-other');
  const waits = alice.evaluate(() => { lock.wait(); lock.cancel(); return lock.wait(); });
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/design-42/lock');
  assert.equal(await waits, 'held');
  // A refused takeover ends the waiting and rejects.
  await alice.evaluate(() => lock.release());
  await server.acquire('bob', 'design-42');
  await until(alice, 'held-by-other');
  alice.evaluate(() => lock.wait());
  await until(alice, 'waiting');
  assert.equal(await alice.evaluate(() => lock.takeOver().catch(({ code }) => code)), 'takeover_forbidden');
  assert.equal(await alice.evaluate(() => lock.state), 'held-by-other');
  await alice.evaluate(() => lock.close());
}, { LOCKHOUSE_LOCKS_TAKEOVER: 'nobody' });

story('a lease that another device of the same person held meanwhile is not reclaimed', async ({ server, person }) => {
  const wire = await SilentProxy.to(server.url);
  try {
    const laptop = await tab(await person(), wire.url, 'alice', { ttlMs: 1_000 });
    await acquire(laptop);
    wire.isSilent = true;
    await until(laptop, 'lost');
    const phone = await tab(await person(), server.url, 'alice');
    await phone.waitForFunction(() => lock.state === 'free');
    await acquire(phone);
    await phone.evaluate(() => lock.release());
    wire.isSilent = false;
    wire.sockets.forEach((socket) => socket.destroy());
    await laptop.waitForFunction(() => lock.view.loss?.changed);
    assert.deepEqual(await laptop.evaluate(() => [lock.state, lock.fence]), ['lost', null]);
  } finally {
    wire.stop();
  }
});

story('with two devices of one person, the first learns from its next heartbeat that the second took the lease', async ({ server, person }) => {
  const laptop = await tab(await person(), server.url, 'alice', { ttlMs: 5_000 });
  await acquire(laptop);
  const phone = await tab(await person(), server.url, 'alice', { ttlMs: 30_000 });
  await until(phone, 'held-by-other');
  assert.equal(await phone.evaluate(() => lock.takeOver()), 'held');
  await until(laptop, 'held-by-other');
  assert.equal(await laptop.evaluate(() => lock.fence), null);
  assert.equal(await phone.evaluate(() => lock.state), 'held');
});

story('of two waiting tabs of one person, one is granted the lock', async ({ server, person }) => {
  await server.acquire('bob', 'design-42');
  const context = await person();
  const tabs = [await tab(context, server.url, 'alice'), await tab(context, server.url, 'alice')];
  for (const page of tabs) {
    await until(page, 'held-by-other');
    page.evaluate(() => void lock.wait());
    await until(page, 'waiting');
  }
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/design-42/lock');
  const both = () => Promise.all(tabs.map((page) => page.evaluate(() => lock.state)));
  await eventually(async () => (await both()).sort().join() === 'held,held-by-other');
});

story('after the server lost its database, the state is read again and new events arrive', async ({ server, person }) => {
  for (let more = 0; more < 5; more++) await server.acquire('carol', 'other-' + more);
  const home = await person();
  const alice = await tab(home, server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  await server.kill();
  // Otherwise alice may get her lock back before carol asks for it.
  await home.setOffline(true);
  for (const file of ['', '-wal', '-shm']) await rm(server.database + file, { force: true });
  await server.restart();
  await server.acquire('carol', 'design-42');
  await home.setOffline(false);
  await until(alice, 'lost');
  await alice.waitForFunction(() => lock.view.loss.by?.userId === 'carol');
  await bob.waitForFunction(() => lock.view.holder?.locked_by_user_id === 'carol');
  await server.ask('carol', 'DELETE', '/api/v1/workspaces/design-42/lock');
  await until(bob, 'free');
});

story('a workspace that may not be followed does not stop the events of others', async ({ server, person }) => {
  const put = (path, body) => server.ask('root', 'PUT', '/api/v1/workspaces/' + path, body);
  for (const id of ['one', 'two']) await put(id, {});
  for (const id of ['one', 'two']) await put(id + '/members/alice', { role: 'editor' });
  const context = await person();
  await context.clock.install();
  const pages = [await tab(context, server.url, 'alice', {}, 'one'), await tab(context, server.url, 'alice', {}, 'two')];
  for (const page of pages) await page.waitForFunction(() => lock.view.isConnected);
  assert.equal(await acquire(pages[0]), 'held');
  await server.ask('root', 'DELETE', '/api/v1/workspaces/two/members/alice');
  // This restarts the stream.
  await server.kill();
  await server.restart();
  await pages[0].waitForFunction(() => lock.view.isConnected);
  await put('one/members/bob', { role: 'admin' });
  await server.acquire('bob', 'one', { force: true });
  await until(pages[0], 'lost');
  // It is tried again, and no event of the others is missed.
  for (const user of ['alice', 'bob']) await put('two/members/' + user, { role: 'editor' });
  await context.clock.fastForward(31_000);
  await pages[1].waitForFunction(() => lock.view.isConnected);
  await server.acquire('bob', 'two');
  await until(pages[1], 'held-by-other');
}, { LOCKHOUSE_WORKSPACES_MEMBERSHIP: 'enforced' });

story('with two requests, the second is shown after the first is declined', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await acquire(alice);
  for (const name of ['bob', 'carol']) await server.ask(name, 'POST', '/api/v1/workspaces/design-42/lock/knock', {});
  await alice.waitForFunction(() => lock.view.knock?.user_id === 'bob');
  await alice.evaluate(() => lock.decline());
  await alice.waitForFunction(() => lock.view.knock?.user_id === 'carol');
});

story('a closed lock leaves no listeners, timers or locks behind', async ({ server, person }) => {
  const context = await person();
  const page = await context.newPage();
  await page.goto(server.url + '/healthz');
  await page.evaluate(async () => {
    const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
    for (let more = 0; more < 20; more++) {
      const lock = new WorkspaceLock(new Lockhouse({ userId: 'alice' }), 'w' + more);
      if (more % 2) await lock.acquire();
      await lock.close();
      await lock.close();
    }
    window.last = new WorkspaceLock(new Lockhouse({ userId: 'alice' }), 'w');
    await last.close();
  });
  // Except the lock with the page's session name.
  const names = await page.evaluate(async () => (await navigator.locks.query()).held.map(({ name }) => name));
  assert.deepEqual(names, [await page.evaluate(() => 'lockhouse session ' + last.sessionId)]);
  assert.match(await page.evaluate(() => last.acquire().catch(({ message }) => message)), /closed/);
  const { locks } = await server.ask('root', 'GET', '/api/v1/locks');
  assert.deepEqual(locks, []);
});

story('a workspace id that URL parsing would remove is refused at once', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const names = await alice.evaluate(async () => {
    const { WorkspaceLock } = await import('/client/index.js');
    return ['', '.', '..'].map((id) => { try { return new WorkspaceLock(client, id); } catch ({ name }) { return name; } });
  });
  assert.deepEqual(names, ['TypeError', 'TypeError', 'TypeError']);
});

story('workspace ids may contain any characters', async ({ server, person }) => {
  const name = '<img src=x onerror=alert(1)> "Zoë"';
  const alice = await tab(await person(), server.url, name, {}, 'a/b ü');
  assert.equal(await acquire(alice), 'held');
  const { lock } = await server.acquire('bob', 'a/b ü');
  assert.equal(lock.locked_by_user_id, name);
  // A line terminator in JavaScript, but not in JSON.
  const bob = await tab(await person(), server.url, 'bob', {}, 'text');
  await bob.waitForFunction(() => lock.view.isConnected);
  await server.acquire('alice', 'text', { note: 'one\u2028two' });
  await until(bob, 'held-by-other');
  assert.equal(await bob.evaluate(() => lock.view.holder.note), 'one\u2028two');
});
