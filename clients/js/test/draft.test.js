import assert from 'node:assert/strict';
import { stories } from './pages.js';
import { until } from './server.js';

const story = stories();

/** The content of the app's database. */
const START = 'The workshop is on Thursday.';

/** An app with drafts. `stored`: its database. `hook`: its `beforeRelease`.
 * @param {import('playwright-core').BrowserContext} context @param {import('./server.js').Server} server */
async function app(context, server, userId, stored = START, hook = 'none') {
  await context.route('**/app', (route) => route.fulfill({ contentType: 'text/html', body: `<!doctype html><title>An app</title>
    <link rel="icon" href="data:,"><textarea readonly></textarea><button id="edit">Begin</button><lockhouse-dialog></lockhouse-dialog>` }));
  const page = await context.newPage();
  await page.goto(server.url + '/app');
  await page.evaluate(async ({ userId, stored, hook }) => {
    const [{ Lockhouse, WorkspaceLock }, { Draft }] = await Promise.all([
      import('/client/index.js'), import('/client/draft.js'), import('/client/dialog.js'),
    ]);
    Object.assign(window, { stored, Draft, hooks: [] });
    const text = document.querySelector('textarea');
    window.store = async () => {
      window.stored = text.value;
      draft.saved(text.value);
    };
    const beforeRelease = async (why) => {
      hooks.push(why);
      if (hook === 'fails') throw new Error('It was not saved.');
      if (hook === 'hangs') await new Promise(() => {});
      await store();
    };
    window.lock = new WorkspaceLock(new Lockhouse({ userId, userName: userId }), 'design-42', hook === 'none' ? {} : { beforeRelease });
    window.draft = new Draft(lock, (body) => (text.value = body));
    window.dialog = document.querySelector('lockhouse-dialog');
    dialog.lock = lock;
    document.querySelector('#edit').addEventListener('click', () => dialog.edit());
    text.addEventListener('input', () => { lock.activity(); draft.keep(text.value); });
    lock.addEventListener('change', () => (text.readOnly = lock.state !== 'held'));
    lock.addEventListener('held', ({ detail }) => detail.isNew && draft.begin(window.stored));
  }, { userId, stored, hook });
  await page.waitForFunction(() => lock.view.isConnected && lock.state !== 'unknown');
  return page;
}

async function edits(page) {
  await page.click('#edit');
  await until(page, 'held');
}
const text = (page) => page.inputValue('textarea');
const press = (page, name) => page.getByRole('button', { name, exact: true }).click();
const title = (page, name) => page.getByRole('heading', { name }).waitFor();
const knock = (server) => server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/knock', { name: 'Bob' });
const kept = (page) => page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith('lockhouse draft ')));
const isWritten = (page) => page.waitForFunction(() => Object.keys(localStorage).some((key) => key.startsWith('lockhouse draft ')));

/** Bob saves and releases. */
async function bobEdits(page, server) {
  await page.evaluate(() => (window.stored = 'What Bob saved.'));
  await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/release', {});
}

/** Alice edits again: she sees Bob's text, and her draft is offered. */
async function isOffered(page) {
  assert.equal(await text(page), 'What Bob saved.');
  await title(page, /^Your text from \d\d:\d\d was not saved$/);
  await page.getByText(/Bob has edited since \(\d\d:\d\d\)/).first().waitFor();
  assert.equal(await page.locator('lockhouse-dialog section pre').textContent(), 'Typed by Alice.');
  await press(page, 'Use my text');
  assert.equal(await text(page), 'Typed by Alice.');
  assert.equal(await page.evaluate(() => draft.isUnsaved), true);
  await page.evaluate(() => store());
  assert.deepEqual(await kept(page), []);
}

story('after an automatic grant, the unsaved text is offered at the next edit', async ({ server, person }) => {
  const context = await person();
  const alice = await app(context, server, 'alice');
  await edits(alice);
  await alice.fill('textarea', 'Typed by Alice.');
  const other = await context.newPage();
  await other.bringToFront();
  await server.acquire('bob', 'design-42', { name: 'Bob' });
  await knock(server);
  await until(alice, 'lost');
  await alice.waitForFunction(() => lock.view.holder?.locked_by_user_id === 'bob');
  await bobEdits(alice, server);
  await alice.bringToFront();
  await press(alice, 'Edit again');
  await until(alice, 'held');
  await isOffered(alice);
}, { LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER: '1s', LOCKHOUSE_LOCKS_KNOCK_GRANT_AT_LATEST: '3s' });

story('after a handover, the unsaved text is offered at the next edit', async ({ server, person }) => {
  const alice = await app(await person(), server, 'alice');
  await edits(alice);
  await alice.fill('textarea', 'Typed by Alice.');
  await knock(server);
  await press(alice, 'Hand over');
  await until(alice, 'held-by-other');
  await bobEdits(alice, server);
  await until(alice, 'free');
  await edits(alice);
  await isOffered(alice);
});

story('without a save in between, the unsaved text is restored and can be discarded', async ({ server, person }) => {
  const context = await person();
  const alice = await app(context, server, 'alice');
  await edits(alice);
  await alice.fill('textarea', 'Typed by Alice.');
  await isWritten(alice);
  await alice.close();
  // A new tab has a new session.
  const again = await app(context, server, 'alice');
  await edits(again);
  assert.equal(await text(again), 'Typed by Alice.');
  await title(again, /^Your text from \d\d:\d\d is back$/);
  await press(again, 'Go on with it');
  assert.deepEqual(await again.evaluate(() => [draft.isUnsaved, draft.found]), [true, null]);
  await again.evaluate(() => lock.release());
  await edits(again);
  await press(again, 'Discard my text');
  assert.equal(await text(again), START);
  assert.deepEqual(await kept(again), []);
});

story('drafts belong to one user and workspace, have limits of number, size and age, and are deleted at logout', async ({ server, person }) => {
  const context = await person();
  const alice = await app(context, server, 'alice');
  await edits(alice);
  // Too old, of another user, of another workspace, unreadable.
  await alice.evaluate(() => {
    const put = (id, kept) => localStorage.setItem('lockhouse draft ' + JSON.stringify(id), typeof kept === 'string' ? kept : JSON.stringify(kept));
    const now = Date.now();
    put(['alice', 'design-42', 's', 'a'], { text: 'old', base: null, at: now - 15 * 24 * 3_600_000, by: null, byAt: null });
    put(['bob', 'design-42', 's', 'b'], { text: 'his', base: null, at: now, by: null, byAt: null });
    put(['alice', 'other', 's', 'c'], { text: 'elsewhere', base: null, at: now, by: null, byAt: null });
    put(['alice', 'design-42', 's', 'd'], 'nonsense');
    draft.begin(stored);
  });
  assert.equal(await text(alice), START);
  assert.equal(await alice.evaluate(() => draft.found), null);
  assert.equal((await kept(alice)).length, 2, 'what nobody can use is removed');
  for (let n = 0; n < 25; n++) {
    await alice.evaluate((n) => {
      draft.keep('Draft ' + n);
      draft.begin('Another ' + n);
    }, n);
  }
  const keys = await kept(alice);
  assert.equal(keys.length, 20);
  assert.ok(!keys.some((key) => key.includes('"bob"')), 'the oldest went');
  await alice.evaluate(() => Draft.forgetUser('bob'));
  assert.equal((await kept(alice)).length, 20);
  await alice.evaluate(() => Draft.forgetUser('alice'));
  assert.deepEqual(await kept(alice), []);
  assert.equal(await alice.evaluate(() => (draft.begin('x'), draft.found)), null);
  // Too large: kept in memory, not in the storage.
  await alice.evaluate(() => draft.keep('ä'.repeat(140 * 1024)));
  await alice.waitForFunction(() => !draft.isKept);
  assert.deepEqual(await kept(alice), []);
  assert.equal(await alice.evaluate(() => (draft.begin('y'), draft.found.text.length)), 140 * 1024);
});

for (const [how, breaks] of [
  ['full', () => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }],
  ['missing', () => Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })],
]) {
  story(`where the storage is ${how} nothing throws, and the page still has what was typed`, async ({ server, person }) => {
    const context = await person();
    const alice = await app(context, server, 'alice');
    await alice.evaluate(breaks);
    await edits(alice);
    await alice.fill('textarea', 'Typed by Alice.');
    await alice.waitForFunction(() => !draft.isKept);
    await server.acquire('bob', 'design-42', { force: true, name: 'Bob' });
    await until(alice, 'lost');
    await alice.evaluate(() => (window.stored = 'What Bob saved.'));
    await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/release', {});
    await press(alice, 'Edit again');
    await until(alice, 'held');
    assert.equal(await alice.evaluate(() => draft.found.text), 'Typed by Alice.');
    await alice.evaluate(() => Draft.forgetUser('alice'));
  });
}

story('the app can save before a handover, a release and an automatic grant', async ({ server, person }) => {
  const alice = await app(await person(), server, 'alice', START, 'saves');
  await edits(alice);
  await alice.fill('textarea', 'One.');
  await knock(server);
  await press(alice, 'Save and hand over');
  await until(alice, 'held-by-other');
  assert.deepEqual(await alice.evaluate(() => [stored, hooks]), ['One.', ['handover']]);
  await server.ask('bob', 'POST', '/api/v1/workspaces/design-42/lock/release', {});
  await until(alice, 'free');
  await edits(alice);
  await alice.fill('textarea', 'Two.');
  await alice.evaluate(() => lock.release());
  assert.deepEqual(await alice.evaluate(() => [stored, hooks, lock.state]), ['Two.', ['handover', 'release'], 'free']);
  await edits(alice);
  await alice.fill('textarea', 'Three.');
  await knock(server);
  await until(alice, 'lost');
  // Called once, before the time of the grant.
  assert.deepEqual(await alice.evaluate(() => [stored, hooks.slice(0, 3)]), ['Three.', ['handover', 'release', 'grant']]);
}, { LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER: '15s' });

story('the lock stays if beforeRelease fails', async ({ server, person }) => {
  const alice = await app(await person(), server, 'alice', START, 'fails');
  await edits(alice);
  await knock(server);
  await press(alice, 'Save and hand over');
  await alice.locator('lockhouse-dialog section .said.bad', { hasText: 'It was not saved.' }).waitFor();
  assert.match(await alice.evaluate(() => lock.release().catch((error) => error.message)), /not saved/);
  assert.equal(await alice.evaluate(() => lock.state), 'held');
  await alice.evaluate(() => lock.close());
  assert.equal((await server.ask('bob', 'GET', '/api/v1/workspaces/design-42/lock')).locked, false);
}, { LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER: 'never' });

story('beforeRelease delays the release by 5 s at most', async ({ server, person }) => {
  const alice = await app(await person(), server, 'alice', START, 'hangs');
  await edits(alice);
  const took = await alice.evaluate(async () => {
    const began = performance.now();
    await lock.release();
    return performance.now() - began;
  });
  assert.ok(took >= 4_900 && took < 50_000, `${took} ms`);
  assert.equal(await alice.evaluate(() => lock.state), 'free');
});
