import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { Server, Wire, begin, browser, eventually, tab, until } from './server.js';

/** @type {import('playwright-core').Browser} */
let chromium;
before(async () => (chromium = await browser()));
after(() => chromium.close());

/** @param {string} name @param {(there: { server: Server, person: () => Promise<import('playwright-core').BrowserContext> }) => Promise<void>} story
 * @param {Record<string, string>} [settings] */
function story(name, tell, settings) {
  test(name, { timeout: 60_000 }, async () => {
    const server = await Server.start(settings);
    const people = [];
    try {
      // Each in a browser of their own.
      await tell({ server, person: async () => (people.push(await chromium.newContext()), people.at(-1)) });
    } finally {
      await Promise.all(people.map((person) => person.close()));
      await server.stop();
    }
  });
}

const acquire = (page) => page.evaluate(() => lock.acquire());
const held = (page) => page.evaluate(() => told.filter(([type]) => type === 'held').map(([, detail]) => detail));
const states = (page) => page.evaluate(() => told.filter(([type]) => type === 'state').map(([, state]) => state));

story('one edits, another one sees who, and gets it when it is released', async ({ server, person }) => {
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
  const shown = ['fence', 'hasAsked', 'hasPlace', 'holder', 'isConnected', 'isOtherTab', 'knock', 'loss', 'mayTakeOver', 'state', 'waiting'];
  assert.deepEqual(await bob.evaluate(() => Object.keys(lock.view).sort()), shown);
  const waits = bob.evaluate(() => lock.wait());
  await until(bob, 'waiting');
  await alice.evaluate(() => lock.release());
  assert.equal(await waits, 'held');
  await until(alice, 'held-by-other');
});

story('whoever is taken over knows in less than a second, and is told by whom', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  await until(alice, 'held');
  await alice.waitForFunction(() => lock.view.isConnected);
  const began = Date.now();
  assert.equal(await bob.evaluate(() => lock.takeOver()), 'held');
  await until(alice, 'lost');
  const took = Date.now() - began;
  assert.ok(took < 1_000, `it took ${took} ms`);
  const [[, loss]] = await alice.evaluate(() => told.filter(([type]) => type === 'lost'));
  assert.ok(Math.abs(Date.parse(loss.at) - began) < 60_000, loss.at);
  delete loss.at;
  assert.deepEqual(loss, { reason: 'taken_over', by: { userId: 'bob', name: 'BOB' }, changed: true, comesBack: false });
  await assert.rejects(alice.evaluate(() => lock.fetch('/save')), /NotHeld/);
});

story('one asks, the other hands it over', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  const asks = bob.evaluate(() => lock.ask('two minutes?'));
  await alice.waitForFunction(() => lock.view.knock?.message === 'two minutes?');
  assert.equal(await alice.evaluate(() => told.find(([type]) => type === 'knock')[1].user_id), 'bob');
  assert.ok(await bob.evaluate(() => lock.view.hasAsked));
  await alice.evaluate(() => lock.handOver());
  assert.equal(await asks, 'held');
  await until(alice, 'held-by-other');
  assert.ok(!(await alice.evaluate(() => told.some(([type]) => type === 'lost'))), 'what one gives away one has not lost');
  // It was claimed, and is renewed from now on.
  const { lock } = await server.acquire('carol', 'design-42');
  assert.ok(lock.expires_in_ms > 60_000 && lock.locked_by_user_id === 'bob', JSON.stringify(lock));
});

story('one asks, the other keeps it', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  const asks = bob.evaluate(() => lock.ask());
  await alice.waitForFunction(() => lock.view.knock);
  await alice.evaluate(() => lock.decline());
  await bob.waitForFunction(() => told.some(([type]) => type === 'declined'));
  const { againInMs } = await bob.evaluate(() => told.find(([type]) => type === 'declined')[1]);
  assert.ok(againInMs > 50_000 && againInMs <= 60_000, `${againInMs} ms`);
  // The place in line stays.
  assert.equal(await bob.evaluate(() => lock.state), 'waiting');
  await bob.evaluate(() => lock.cancel());
  assert.equal(await asks, 'held-by-other');
  assert.equal(await alice.evaluate(() => lock.view.knock), null);
  assert.equal(await alice.evaluate(() => lock.state), 'held');
});

story('an administrator ends it, and the holder knows', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await acquire(alice);
  await alice.waitForFunction(() => lock.view.isConnected);
  await server.ask('root', 'DELETE', '/api/v1/workspaces/design-42/lock?force=true');
  await until(alice, 'lost');
  assert.deepEqual(await alice.evaluate(() => [lock.view.loss.reason, lock.view.loss.by.userId]), ['revoked', 'root']);
});

story('a closed tab lets go at once', async ({ server, person }) => {
  const context = await person();
  const alice = await tab(context, server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  const waits = bob.evaluate(() => lock.wait());
  await until(bob, 'waiting');
  await alice.close({ runBeforeUnload: true });
  assert.equal(await waits, 'held');
});

story('a page that is loaded again is the same tab', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice', { releaseOnClose: false });
  await acquire(alice);
  const fence = await alice.evaluate(() => lock.fence);
  await alice.reload();
  await begin(alice, 'alice', {});
  await until(alice, 'free');
  assert.equal(await acquire(alice), 'held');
  assert.equal(await alice.evaluate(() => lock.fence), fence);
});

story('a tab that is duplicated is another one', async ({ server, person }) => {
  const context = await person();
  const one = await tab(context, server.url, 'alice');
  await acquire(one);
  // window.open copies what sessionStorage has.
  const [two] = await Promise.all([context.waitForEvent('page'), one.evaluate(() => void window.open('/healthz'))]);
  await begin(two, 'alice', {});
  const session = (page) => page.evaluate(() => lock.sessionId);
  await until(two, 'held-by-other');
  assert.notEqual(await session(one), await session(two));
  // The first one's stream is there for it, too.
  await two.waitForFunction(() => lock.view.isConnected);
  assert.equal(await acquire(two), 'held-by-other', 'nothing is taken from the other tab unasked');
  assert.equal(await two.evaluate(() => lock.view.isOtherTab), true);
  assert.equal(await two.evaluate(() => lock.takeOver()), 'held');
  await until(one, 'held-by-other', 2_000);
  assert.equal(await one.evaluate(() => lock.view.isOtherTab), true);
  assert.equal(await one.evaluate(() => lock.fence), null);
});

story('the tabs of one person share one stream, and another tab goes on when the first is closed', async ({ server, person }) => {
  const context = await person();
  const tabs = [];
  for (const id of ['one', 'two', 'three']) tabs.push(await tab(context, server.url, 'alice', {}, id));
  const streams = async () => {
    const text = await (await fetch(server.url + '/metrics', { headers: { 'X-User-Id': 'root' } })).text();
    return Number(/^lockhouse_followers (\d+)$/m.exec(text)[1]);
  };
  for (const page of tabs) await page.waitForFunction(() => lock.view.isConnected);
  // When more is wanted it begins anew.
  await eventually(async () => (await streams()) === 1);
  await server.acquire('bob', 'three');
  await until(tabs[2], 'held-by-other', 2_000);
  await tabs[0].close();
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/three/lock');
  await until(tabs[2], 'free', 5_000);
  await server.acquire('bob', 'two');
  await until(tabs[1], 'held-by-other', 5_000);
  await eventually(async () => (await streams()) === 1);
});

story('nothing is believed of a lease when the network is silent', async ({ server, person }) => {
  const wire = await Wire.to(server.url);
  try {
    const alice = await tab(await person(), wire.url, 'alice', { ttlMs: 2_000 });
    await acquire(alice);
    wire.isSilent = true;
    const lost = await alice.evaluate(
      () => new Promise((resolve) => lock.addEventListener('lost', ({ detail }) => resolve({ detail, fence: lock.fence }))),
    );
    assert.ok(lost.detail.at, 'when it was lost is said');
    delete lost.detail.at;
    assert.deepEqual(lost, { detail: { reason: 'expired', by: null, changed: false, comesBack: true }, fence: null });
    // For the server it was still good then, or just over: somebody else gets it no earlier.
    const bob = await tab(await person(), server.url, 'bob');
    assert.equal(await bob.evaluate(() => lock.wait()), 'held');
    wire.isSilent = false;
    wire.sockets.forEach((socket) => socket.destroy());
    await alice.waitForFunction(() => lock.view.loss?.by?.userId === 'bob', null, { timeout: 20_000 });
    assert.equal(await alice.evaluate(() => lock.state), 'lost');
  } finally {
    wire.stop();
  }
}, { LOCKHOUSE_LOCKS_MIN_TTL: '500ms' });

story('after a silence an uncontested lease comes back quietly', async ({ server, person }) => {
  const wire = await Wire.to(server.url);
  try {
    const alice = await tab(await person(), wire.url, 'alice', { ttlMs: 1_000 });
    await acquire(alice);
    const fence = await alice.evaluate(() => lock.fence);
    wire.isSilent = true;
    await until(alice, 'lost');
    wire.isSilent = false;
    wire.sockets.forEach((socket) => socket.destroy());
    await until(alice, 'held', 20_000);
    assert.equal(await alice.evaluate(() => lock.fence), fence);
    assert.deepEqual(await held(alice), [{ fence, isNew: true }, { fence, isNew: false }], 'nothing has to be read anew');
  } finally {
    wire.stop();
  }
});

story('what another tab of the same person may have changed is to be read anew', async ({ server, person }) => {
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

story('a frozen tab does not believe that it still has what is over', async ({ server, person }) => {
  // In a browser of its own, whose pages are stopped as a whole: no timer, no answer, nothing.
  const own = await browser();
  try {
    const alice = await tab(await own.newContext(), server.url, 'alice', { ttlMs: 1_000 });
    await acquire(alice);
    const { processInfo } = await (await own.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
    const signal = (name) => processInfo.filter(({ type }) => type === 'renderer').forEach(({ id }) => process.kill(id, name));
    signal('SIGSTOP');
    const bob = await tab(await person(), server.url, 'bob');
    assert.equal(await bob.evaluate(() => lock.wait()), 'held');
    signal('SIGCONT');
    await alice.waitForFunction(() => lock.view.loss?.by?.userId === 'bob');
    assert.deepEqual(await alice.evaluate(() => [lock.state, lock.fence]), ['lost', null]);
    // What was true at any time: it was not held by both.
    assert.equal(await bob.evaluate(() => lock.state), 'held');
    assert.equal(await alice.evaluate(() => lock.takeOver()), 'held');
  } finally {
    await own.close();
  }
});

story('after a freeze the stream of events goes on where it was', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await until(alice, 'free');
  await alice.waitForFunction(() => lock.view.isConnected);
  // What the browser says before it freezes a page, and after.
  await alice.evaluate(() => document.dispatchEvent(new Event('freeze')));
  await alice.waitForFunction(() => !lock.view.isConnected);
  await server.acquire('bob', 'design-42');
  await alice.evaluate(() => document.dispatchEvent(new Event('resume')));
  await until(alice, 'held-by-other');
});

story('the server is killed and comes back', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice', { ttlMs: 3_000 });
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  const fence = await alice.evaluate(() => lock.fence);
  await server.kill();
  await bob.waitForFunction(() => !lock.view.isConnected);
  await server.again();
  await bob.waitForFunction(() => lock.view.isConnected);
  await until(alice, 'held');
  assert.equal(await alice.evaluate(() => lock.fence), fence);
  await alice.evaluate(() => lock.release());
  await until(bob, 'free', 20_000);
});

story('offline and back', async ({ server, person }) => {
  const context = await person();
  const alice = await tab(context, server.url, 'alice', { ttlMs: 2_000 });
  await acquire(alice);
  await context.setOffline(true);
  await until(alice, 'lost');
  await context.setOffline(false);
  await until(alice, 'held', 20_000);
});

story('the back-forward cache', async ({ server }) => {
  const own = await browser({ ignoreDefaultArgs: ['--disable-back-forward-cache'] });
  try {
    const context = await own.newContext();
    // Pages of the server are not to be stored; the app's own are.
    await context.route('**/app', (route) => route.fulfill({ contentType: 'text/html', body: '<title>An app</title>' }));
    const alice = await tab(context, server.url, 'alice', {}, 'design-42', '/app');
    await alice.evaluate(() => {
      // Playwright loses sight of a page that comes back: it says so itself.
      window.addEventListener('pageshow', ({ persisted }) => persisted && client.acquire('came back'));
    });
    await acquire(alice);
    const read = async (id) => (await server.ask('bob', 'GET', `/api/v1/workspaces/${encodeURIComponent(id)}/lock`)).lock;
    const before = await read('design-42');
    await alice.goto(server.url + '/readyz');
    // It is let go of.
    await eventually(async () => !(await read('design-42')));
    await alice.evaluate(() => history.back()).catch(() => {});
    await eventually(() => read('came back'));
    const after = await eventually(() => read('design-42'));
    assert.ok(after.fence > before.fence && after.session_id === before.session_id, 'nobody came between');
  } finally {
    await own.close();
  }
});

story('saving names the lease, and does not happen without one', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await acquire(alice);
  const gate = (page) => page.evaluate(() => lock.fetch('/api/v1/gate', { headers: { 'X-User-Id': 'alice' } }).then(({ status }) => status, ({ name }) => name));
  assert.equal(await gate(alice), 204);
  await alice.evaluate(() => lock.release());
  assert.equal(await gate(alice), 'NotHeld');
});

story('whoever waits longer than the server lets them keeps their place', async ({ server, person }) => {
  await server.acquire('alice', 'design-42');
  const bob = await tab(await person(), server.url, 'bob');
  const waits = bob.evaluate(() => lock.wait());
  await until(bob, 'waiting');
  // In line behind bob, for as long as it takes him to ask several times.
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
}, { LOCKHOUSE_LOCKS_MAX_WAIT: '1s' });

story('who is refused is not asked again, who was not heard is', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  let asked = 0;
  alice.on('request', (request) => (asked += request.url().includes('/nothing') ? 1 : 0));
  const refused = await alice.evaluate(() => client.request('GET', '/api/v1/nothing').catch(({ code, status }) => [code, status]));
  assert.deepEqual([refused, asked], [['not_found', 404], 1]);
  await server.kill();
  const heard = alice.evaluate(() => client.read('design-42'));
  await alice.waitForEvent('requestfailed');
  await server.again();
  assert.equal((await heard).locked, false);
});

story('who is calling must be said, and a token that cannot be had is told of once', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const told = [];
  alice.on('console', (message) => told.push(message.text()));
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
  assert.deepEqual(told.filter((text) => text.includes('has no token')).length, 1, told.join());
});

story('whatever is done in whatever order, what is shown is what is', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const read = () => server.ask('root', 'GET', '/api/v1/workspaces/design-42/lock');
  // Twice at once.
  assert.deepEqual(await alice.evaluate(() => Promise.all([lock.acquire(), lock.acquire()])), ['held', 'held']);
  assert.equal((await read()).lock.fence, await alice.evaluate(() => lock.fence));
  // Released while it is asked for.
  await alice.evaluate(() => lock.release());
  await alice.evaluate(() => { const asked = lock.acquire(); return Promise.all([asked, lock.release()]); });
  await eventually(async () => !(await read()).locked);
  assert.equal(await alice.evaluate(() => lock.state), 'free');
  // Waits, does not, and does.
  await server.acquire('bob', 'design-42');
  await until(alice, 'held-by-other');
  const waits = alice.evaluate(() => { lock.wait(); lock.cancel(); return lock.wait(); });
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/design-42/lock');
  assert.equal(await waits, 'held');
  // May not take over while it waits: waits no longer, and says so.
  await alice.evaluate(() => lock.release());
  await server.acquire('bob', 'design-42');
  await until(alice, 'held-by-other');
  alice.evaluate(() => lock.wait());
  await until(alice, 'waiting');
  assert.equal(await alice.evaluate(() => lock.takeOver().catch(({ code }) => code)), 'takeover_forbidden');
  assert.equal(await alice.evaluate(() => lock.state), 'held-by-other');
  await alice.evaluate(() => lock.close());
}, { LOCKHOUSE_LOCKS_TAKEOVER: 'nobody' });

story('what another device of the same person had meanwhile does not come back quietly', async ({ server, person }) => {
  const wire = await Wire.to(server.url);
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
    await laptop.waitForFunction(() => lock.view.loss?.changed, null, { timeout: 20_000 });
    assert.deepEqual(await laptop.evaluate(() => [lock.state, lock.fence]), ['lost', null]);
  } finally {
    wire.stop();
  }
});

story('two devices of one person: the one that goes on elsewhere has it, and the other knows with its next heartbeat', async ({ server, person }) => {
  const laptop = await tab(await person(), server.url, 'alice', { ttlMs: 1_000 });
  await acquire(laptop);
  const phone = await tab(await person(), server.url, 'alice', { ttlMs: 5_000 });
  await until(phone, 'held-by-other');
  assert.equal(await phone.evaluate(() => lock.takeOver()), 'held');
  await until(laptop, 'held-by-other');
  assert.equal(await laptop.evaluate(() => lock.fence), null);
  assert.equal(await phone.evaluate(() => lock.state), 'held');
});

story('of two tabs of one person that wait, one gets it', async ({ server, person }) => {
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

story('when the server has lost its database the state is read anew, and new events are heard', async ({ server, person }) => {
  for (let more = 0; more < 5; more++) await server.acquire('carol', 'other-' + more);
  const alice = await tab(await person(), server.url, 'alice');
  const bob = await tab(await person(), server.url, 'bob');
  await acquire(alice);
  await until(bob, 'held-by-other');
  await server.kill();
  for (const file of ['', '-wal', '-shm']) await rm(server.database + file, { force: true });
  await server.again();
  await server.acquire('carol', 'design-42');
  await until(alice, 'lost', 20_000);
  assert.equal(await alice.evaluate(() => lock.view.loss.by.userId), 'carol');
  await bob.waitForFunction(() => lock.view.holder?.locked_by_user_id === 'carol', null, { timeout: 20_000 });
  await server.ask('carol', 'DELETE', '/api/v1/workspaces/design-42/lock');
  await until(bob, 'free');
});

story('one workspace that may not be followed keeps nobody from following the others', async ({ server, person }) => {
  const put = (path, body) => server.ask('root', 'PUT', '/api/v1/workspaces/' + path, body);
  for (const id of ['one', 'two']) await put(id, {});
  for (const id of ['one', 'two']) await put(id + '/members/alice', { role: 'editor' });
  const context = await person();
  await context.clock.install();
  const pages = [await tab(context, server.url, 'alice', {}, 'one'), await tab(context, server.url, 'alice', {}, 'two')];
  for (const page of pages) await page.waitForFunction(() => lock.view.isConnected);
  assert.equal(await acquire(pages[0]), 'held');
  await server.ask('root', 'DELETE', '/api/v1/workspaces/two/members/alice');
  // The stream has to begin anew.
  await server.kill();
  await server.again();
  await pages[0].waitForFunction(() => lock.view.isConnected);
  await put('one/members/bob', { role: 'admin' });
  await server.acquire('bob', 'one', { force: true });
  await until(pages[0], 'lost', 3_000);
  // It is tried again, and nothing is missed of the others meanwhile.
  for (const user of ['alice', 'bob']) await put('two/members/' + user, { role: 'editor' });
  await context.clock.fastForward(31_000);
  await pages[1].waitForFunction(() => lock.view.isConnected);
  await server.acquire('bob', 'two');
  await until(pages[1], 'held-by-other', 3_000);
}, { LOCKHOUSE_WORKSPACES_MEMBERSHIP: 'enforced' });

story('two ask: who is declined is not the last', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await acquire(alice);
  for (const name of ['bob', 'carol']) await server.ask(name, 'POST', '/api/v1/workspaces/design-42/lock/knock', {});
  await alice.waitForFunction(() => lock.view.knock?.user_id === 'bob');
  await alice.evaluate(() => lock.decline());
  await alice.waitForFunction(() => lock.view.knock?.user_id === 'carol');
});

story('what was opened and closed leaves nothing behind', async ({ server, person }) => {
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
  // But the name of the page, which is its own while it lives.
  const names = await page.evaluate(async () => (await navigator.locks.query()).held.map(({ name }) => name));
  assert.deepEqual(names, [await page.evaluate(() => 'lockhouse session ' + last.sessionId)]);
  assert.match(await page.evaluate(() => last.acquire().catch(({ message }) => message)), /closed/);
  const { locks } = await server.ask('root', 'GET', '/api/v1/locks');
  assert.deepEqual(locks, []);
});

story('an id that a browser takes for a folder is refused at once', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const names = await alice.evaluate(async () => {
    const { WorkspaceLock } = await import('/client/index.js');
    return ['', '.', '..'].map((id) => { try { return new WorkspaceLock(client, id); } catch ({ name }) { return name; } });
  });
  assert.deepEqual(names, ['TypeError', 'TypeError', 'TypeError']);
});

story('names are text', async ({ server, person }) => {
  const name = '<img src=x onerror=alert(1)> "Zoë"';
  const alice = await tab(await person(), server.url, name, {}, 'a/b ü');
  assert.equal(await acquire(alice), 'held');
  const { lock } = await server.acquire('bob', 'a/b ü');
  assert.equal(lock.locked_by_user_id, name);
  // A line for JavaScript's patterns, and none for JSON.
  const bob = await tab(await person(), server.url, 'bob', {}, 'text');
  await bob.waitForFunction(() => lock.view.isConnected);
  await server.acquire('alice', 'text', { note: 'one\u2028two' });
  await until(bob, 'held-by-other', 2_000);
  assert.equal(await bob.evaluate(() => lock.view.holder.note), 'one\u2028two');
});
