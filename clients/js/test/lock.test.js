import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Server, Wire, begin, browser, tab, until } from './server.js';

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
  assert.deepEqual(loss, { reason: 'taken_over', by: { userId: 'bob', name: 'BOB' }, changed: true });
  await assert.rejects(alice.evaluate(() => lock.fetch('/save')), /NotHeld/);
});
