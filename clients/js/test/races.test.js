import assert from 'node:assert/strict';
import { stories } from './pages.js';
import { eventually, tab, until } from './server.js';

/** Actions while an answer is in flight. */
const story = stories();

const acquire = (page) => page.evaluate(() => lock.acquire());
const isLocked = async (server) => (await server.ask('root', 'GET', '/api/v1/workspaces/design-42/lock')).locked;

/** Records the methods of this page's requests for the lock. */
function asked(page) {
  const methods = [];
  page.on('request', (request) => new URL(request.url()).pathname.endsWith('/lock') && methods.push(request.method()));
  return methods;
}

story('a lock that is released during a heartbeat stays released', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await alice.waitForFunction(() => lock.view.isConnected && lock.state === 'free');
  await acquire(alice);
  const { promise: isReleased, resolve: released } = later();
  await alice.route('**/heartbeat', async (route) => {
    await isReleased;
    await route.continue();
  });
  const beat = alice.waitForResponse('**/heartbeat');
  await alice.evaluate(() => { lock.refresh(); lock.refresh(); return lock.release(); });
  await alice.waitForFunction(() => lock.view.holder === null);
  const methods = asked(alice);
  released();
  await (await beat).finished();
  await alice.evaluate(() => lock.refresh());
  assert.deepEqual([methods, await alice.evaluate(() => lock.state)], [['GET'], 'free']);
});

story('a lock can be released within its held event', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  const state = await alice.evaluate(() => {
    lock.addEventListener('change', () => lock.view.state === 'held' && lock.release());
    return lock.acquire();
  });
  assert.equal(state, 'free');
});

story('a lock can be released within its lost event, and is not reclaimed', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice', { ttlMs: 1_000 });
  await alice.evaluate(() => lock.addEventListener('lost', () => lock.release()));
  await alice.route('**/heartbeat', (route) => route.abort());
  const methods = asked(alice);
  await acquire(alice);
  await alice.waitForFunction(() => recorded.some(([type]) => type === 'lost'));
  await eventually(async () => !(await isLocked(server)));
  await alice.evaluate(() => lock.refresh());
  assert.deepEqual([methods.filter((method) => method === 'POST').length, await alice.evaluate(() => lock.state)], [1, 'free']);
});

story('a grant that arrives after ask was called is used', async ({ server, person }) => {
  await server.acquire('bob', 'design-42');
  const alice = await tab(await person(), server.url, 'alice');
  await until(alice, 'held-by-other');
  const { promise: isReleased, resolve: released } = later();
  const { promise: isAsked, resolve: ask } = later();
  // The first request arrives after bob's release, and is answered before the knock.
  await alice.route('**/lock', async (route) => {
    if (route.request().method() === 'POST') await isReleased;
    await route.continue();
  });
  await alice.route('**/knock', async (route) => {
    const response = await route.fetch();
    ask();
    await alice.waitForFunction(() => recorded.some(([type, state]) => type === 'state' && state === 'held'));
    await route.fulfill({ response });
  });
  const states = alice.evaluate(() => Promise.all([lock.acquire(), lock.ask()]));
  await isAsked;
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/design-42/lock');
  released();
  assert.deepEqual(await states, ['held', 'held']);
  assert.deepEqual(await alice.evaluate(() => [lock.state, lock.view.state, lock.fence !== null]), ['held', 'held', true]);
});

story('an automatic grant after a failed handover counts as a loss', async ({ server, person }) => {
  const alice = await tab(await person(), server.url, 'alice');
  await alice.waitForFunction(() => lock.view.isConnected && lock.state === 'free');
  await acquire(alice);
  assert.equal(await alice.evaluate(() => lock.handOver('alice').catch(({ code }) => code)), 'invalid_request');
  await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/knock', {});
  await alice.waitForFunction(() => recorded.some(([type, loss]) => type === 'lost' && loss.reason === 'handed_over'));
  assert.equal(await alice.evaluate(() => lock.state), 'lost');
}, { LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER: '1s' });

/** A promise and its resolver. */
function later() {
  let resolve;
  const promise = new Promise((keep) => (resolve = keep));
  return { promise, resolve };
}

story('the removal of a member who does not hold the lock leaves the holder', async ({ server, person }) => {
  const put = (path, body) => server.ask('root', 'PUT', '/api/v1/workspaces/design-42' + path, body);
  await put('', {});
  await put('/members/carol', { role: 'editor' });
  await server.acquire('carol', 'design-42');
  const bob = await tab(await person(), server.url, 'bob');
  await until(bob, 'held-by-other');
  await bob.waitForFunction(() => lock.view.isConnected);
  await put('/members/dave', { role: 'editor' });
  await server.ask('root', 'DELETE', '/api/v1/workspaces/design-42/members/dave');
  // A later event proves that this one was handled.
  await server.ask('dave', 'POST', '/api/v1/workspaces/design-42/lock/knock', {});
  await bob.waitForFunction(() => lock.view.holder?.knock);
  assert.deepEqual(await bob.evaluate(() => recorded.filter(([type]) => type === 'state').map(([, state]) => state)), ['held-by-other']);
});

story('a lease counts as new if another device used the same fence meanwhile', async ({ server, person }) => {
  const context = await person();
  const laptop = await tab(context, server.url, 'alice', { ttlMs: 10_000 });
  await laptop.evaluate(() => lock.acquire());
  const fence = await laptop.evaluate(() => lock.fence);
  await context.setOffline(true);
  const { lock: phone } = await server.acquire('alice', 'design-42', { session_id: 'phone', ttl_ms: 60_000 });
  assert.equal(phone.fence, fence, 'they share the lease');
  await until(laptop, 'lost');
  // Before the automatic reclaim.
  const taken = laptop.evaluate(() => lock.takeOver());
  await context.setOffline(false);
  assert.equal(await taken, 'held');
  const held = await laptop.evaluate(() => recorded.filter(([type]) => type === 'held').map(([, detail]) => detail));
  assert.deepEqual(held, [{ fence, isNew: true }, { fence, isNew: true }]);
});
