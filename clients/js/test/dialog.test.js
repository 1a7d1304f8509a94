import assert from 'node:assert/strict';
import { LOOKS, accessible, stories } from './pages.js';
import { until } from './server.js';

const story = stories();
const WORKSPACE = 'design-42';

/** Opens an app: a text, a button that begins to edit, and the dialog. It has the headers of the server's own pages.
 * @param {import('playwright-core').BrowserContext} context @param {import('./server.js').Server} server */
async function app(context, server, userId, userName = userId, options = {}, connected = true) {
  const { headers } = await fetch(server.url + '/');
  const policy = headers.get('content-security-policy');
  const body = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
    <title>An app</title><link rel="icon" href="data:,"><meta name="color-scheme" content="light dark"><main><h1>An app</h1>
    <button id="edit">Edit the drawing</button></main><lockhouse-dialog></lockhouse-dialog></html>`;
  await context.route('**/app', (route) => route.fulfill({ contentType: 'text/html', headers: { 'Content-Security-Policy': policy }, body }));
  const page = await context.newPage();
  await page.goto(server.url + '/app');
  await page.evaluate(async ({ userId, userName, options, workspace }) => {
    const [{ Lockhouse, WorkspaceLock }] = await Promise.all([import('/client/index.js'), import('/client/dialog.js')]);
    window.client = new Lockhouse({ userId, userName });
    window.lock = new WorkspaceLock(client, workspace, options);
    window.dialog = document.querySelector('lockhouse-dialog');
    dialog.lock = lock;
    window.heard = [];
    for (const type of ['open', 'close', 'readonly']) dialog.addEventListener(type, () => heard.push(type));
    document.querySelector('#edit').addEventListener('click', () => dialog.edit());
  }, { userId, userName, options, workspace: WORKSPACE });
  await page.waitForFunction((connected) => (lock.view.isConnected || !connected) && lock.state !== 'unknown', connected);
  return page;
}

const press = (page, name) => page.getByRole('button', { name, exact: true }).click();
const title = (page, name) => page.getByRole('heading', { name, exact: true }).waitFor();
const says = (page, text) => page.getByText(text).filter({ visible: true }).first().waitFor();
const closed = (page) => page.getByRole('dialog').waitFor({ state: 'hidden' });
const noticed = (page) => page.locator('lockhouse-dialog section');

/** Alice edits, and Bob sees the dialog. */
async function two({ server, person }) {
  const alice = await app(await person(), server, 'alice', 'Alice Martin');
  const bob = await app(await person(), server, 'bob', 'Bob');
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  await until(bob, 'held-by-other');
  await press(bob, 'Edit the drawing');
  await title(bob, 'Alice Martin is editing');
  return { alice, bob };
}

story('the holder sees no dialog, and the second user sees the holder\'s name', async (there) => {
  const { alice, bob } = await two(there);
  assert.equal(await alice.getByRole('dialog').count(), 0);
  await says(bob, 'Alice Martin was active just now');
  // The running time is not announced by screen readers.
  await says(bob, /^Alice Martin was active \d+\ss ago$/);
  assert.equal(await bob.evaluate(() => {
    const ticking = dialog.shadowRoot.querySelector('.ticking');
    return Boolean(ticking.closest('[aria-live], [role=status], [role=alert]'));
  }), false);
  await press(bob, 'Read only');
  await closed(bob);
  assert.deepEqual(await bob.evaluate(() => heard), ['open', 'close', 'readonly']);
});

story('an agent is named with the user for whom it acts, and yields when the person begins to edit', async ({ server, person }) => {
  await server.acquire('alice', WORKSPACE, { kind: 'agent', name: 'Claude', note: 'renaming the layers' });
  const bob = await app(await person(), server, 'bob', 'Bob');
  await until(bob, 'held-by-other');
  assert.deepEqual(await bob.evaluate(() => [lock.view.kind, lock.view.holder.agent.for_user_id]), ['agent', 'alice']);
  await bob.evaluate(() => dialog.show());
  await title(bob, 'Claude (agent of alice) is editing');
  await says(bob, '“renaming the layers”');
  await press(bob, 'Read only');
  await press(bob, 'Edit the drawing');
  await until(bob, 'held');
});

story('the own agent and the own process of a person are somebody else', async ({ server, person }) => {
  await server.acquire('alice', WORKSPACE, { kind: 'run', session_id: 'job-7' });
  const alice = await app(await person(), server, 'alice', 'Alice Martin');
  await until(alice, 'held-by-other');
  assert.equal(await alice.evaluate(() => lock.view.isOtherTab), false);
  await press(alice, 'Edit the drawing');
  await title(alice, 'alice is editing');
});

story('a person who asks a process for the lock is not promised it', async ({ server, person }) => {
  await server.acquire('ci', WORKSPACE, { kind: 'run', session_id: 'job-7', ttl_ms: 600_000 });
  const bob = await app(await person(), server, 'bob', 'Bob');
  await press(bob, 'Edit the drawing');
  await press(bob, 'Ask…');
  await press(bob, 'Ask');
  await bob.waitForFunction(() => lock.view.holder?.knock?.user_id === 'bob');
  assert.equal(await bob.evaluate(() => lock.view.holder.knock.auto_grant_at), null);
  await says(bob, /^ci was active/);
});

story('the time of inactivity does not depend on the wall clock of this machine', async ({ server, person }) => {
  await server.acquire('alice', WORKSPACE);
  const context = await person();
  await context.addInitScript(() => (Date.now = () => 0));
  const bob = await app(context, server, 'bob');
  await press(bob, 'Edit the drawing');
  await says(bob, /^alice was active (just now|\d+\ss ago)$/);
});

story('a waiting user is granted the lock, and can stop waiting', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Wait');
  await title(bob, 'You’re in the queue');
  await says(bob, 'You can edit as soon as Alice Martin has finished.');
  await press(bob, 'Stop waiting');
  await title(bob, 'Alice Martin is editing');
  await press(bob, 'Wait');
  await until(bob, 'waiting');
  await alice.evaluate(() => lock.release());
  await until(bob, 'held');
  await closed(bob);
});

story('a waiting user can read meanwhile', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Wait');
  await press(bob, 'Read meanwhile');
  await closed(bob);
  await noticed(bob).getByRole('heading', { name: 'You’re in the queue' }).waitFor();
  assert.equal(await bob.evaluate(() => lock.state), 'waiting');
  await alice.evaluate(() => lock.release());
  await until(bob, 'held');
  await noticed(bob).waitFor({ state: 'hidden' });
  assert.equal(await bob.evaluate(() => dialog.open), false);
});

story('the holder hands the lock over to the user who asks', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Ask…');
  await bob.keyboard.type('Two minutes?');
  await bob.keyboard.press('Enter');
  await title(bob, 'You’re in the queue');
  await says(bob, 'Alice Martin has been asked. You can edit as soon as Alice Martin agrees or has finished.');
  await says(bob, /^Yours in \d+\ss, unless Alice Martin says no$/);
  const notice = noticed(alice);
  await notice.getByRole('heading', { name: 'Bob would like to edit' }).waitFor();
  await says(alice, '“Two minutes?”');
  await says(alice, /^Passes to Bob in \d+\ss unless you answer$/);
  assert.equal(await alice.evaluate(() => document.activeElement.id), 'edit', 'nobody is interrupted');
  await press(alice, 'Hand over');
  await until(bob, 'held');
  await closed(bob);
  await notice.waitFor({ state: 'hidden' });
  assert.equal(await alice.evaluate(() => dialog.open), false, 'she knows');
});

const AGAIN = /^You can ask Alice Martin again in (\d+\ss|1\smin)$/;

story('a declined user sees at once when they can ask again', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Ask…');
  await press(bob, 'Ask');
  await press(alice, 'Not now');
  await says(bob, 'Alice Martin keeps it for now.');
  // The place in the queue stays.
  await title(bob, 'You’re in the queue');
  await says(bob, 'You are number 1 of 1.');
  await noticed(alice).waitFor({ state: 'hidden' });
  assert.equal(await alice.evaluate(() => lock.state), 'held');
  const again = bob.getByRole('button', { name: AGAIN });
  await again.waitFor();
  assert.ok(await again.isDisabled());
  assert.equal(await bob.evaluate(() => lock.state), 'waiting');
  // Stopping the wait does not allow an earlier request.
  await press(bob, 'Stop waiting');
  await title(bob, 'Alice Martin is editing');
  assert.ok(await again.isDisabled());
  await press(bob, 'Wait');
  await alice.evaluate(() => lock.release());
  await until(bob, 'held');
});

story('a user can ask again, and another refusal shows the time until the next request', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Ask…');
  await press(bob, 'Ask');
  await press(alice, 'Not now');
  await press(bob, 'Ask Alice Martin again');
  await noticed(alice).getByRole('heading', { name: 'Bob would like to edit' }).waitFor();
  await says(bob, /^Alice Martin has been asked\./);
  assert.equal(await bob.getByText('Alice Martin keeps it for now.').count(), 0);
  await press(alice, 'Not now');
  await bob.getByRole('button', { name: AGAIN }).waitFor();
}, { LOCKHOUSE_LOCKS_KNOCK_AGAIN_AFTER: '3s' });

story('a refusal because of a request in another tab shows the time until the next request', async (there) => {
  const { alice, bob } = await two(there);
  await there.server.ask('bob', 'POST', `/api/v1/workspaces/${WORKSPACE}/lock/knock`, {});
  await press(alice, 'Not now');
  await press(bob, 'Ask…');
  await press(bob, 'Ask');
  await title(bob, 'You’re in the queue');
  await bob.getByRole('button', { name: AGAIN }).waitFor();
});

story('a holder who does not answer loses the lock to the user who asked', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Ask…');
  await press(bob, 'Ask');
  await until(bob, 'held');
  await title(alice, 'You are no longer editing');
  await says(alice, /^You did not answer for 1\ss: it passed to Bob, who had asked for it, at \d\d:\d\d\.$/);
}, { LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER: '1s' });

story('there is no automatic grant while the holder types', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Ask…');
  await press(bob, 'Ask');
  await noticed(alice).waitFor();
  const began = Date.now();
  while (Date.now() - began < 9_000) {
    await alice.evaluate(() => lock.activity());
    await alice.waitForTimeout(200);
  }
  assert.equal(await alice.evaluate(() => lock.state), 'held');
  // She stops.
  await until(bob, 'held');
  await says(alice, /^You did not answer for \d+\ss: it passed to Bob/);
}, { LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER: '6s' });

story('a request changes the title of the tab; notification and sound need the attributes', async (there) => {
  const { alice, bob } = await two(there);
  await alice.evaluate(() => {
    window.shown = [];
    Object.defineProperty(document, 'hidden', { get: () => true });
    window.Notification = class extends EventTarget {
      static permission = 'granted';
      constructor(text) { super(); shown.push(text); }
      close() { shown.push('closed'); }
    };
    window.AudioContext = class { constructor() { shown.push('sound'); throw new Error('no'); } };
  });
  const asks = async () => {
    await press(bob, 'Ask…');
    await press(bob, 'Ask');
    await alice.waitForFunction(() => document.title !== 'An app');
    assert.match(await alice.title(), /Bob.* would like to edit – An app$/);
  };
  await asks();
  assert.deepEqual(await alice.evaluate(() => shown), []);
  await press(alice, 'Hand over');
  await alice.waitForFunction(() => document.title === 'An app');
  await until(bob, 'held');
  await bob.evaluate(() => lock.release());
  await alice.evaluate(() => {
    dialog.setAttribute('notify', '');
    dialog.setAttribute('sound', '');
  });
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  await press(bob, 'Edit the drawing');
  await asks();
  assert.match((await alice.evaluate(() => shown)).join(), /Bob.* would like to edit,sound$/);
  // The page's own new title stays.
  await alice.evaluate(() => (document.title = 'Another'));
  await press(alice, 'Not now');
  await alice.waitForFunction(() => shown.includes('closed'));
  assert.equal(await alice.title(), 'Another');
});

story('a takeover needs a confirmation, and the former holder is told', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Take over…');
  await title(bob, 'Take over from Alice Martin?');
  await says(bob, 'Alice Martin will no longer be able to save. What Alice Martin has not saved yet stays in the page over there.');
  await press(bob, 'Back');
  await title(bob, 'Alice Martin is editing');
  assert.equal(await alice.evaluate(() => lock.state), 'held');
  await press(bob, 'Take over…');
  await press(bob, 'Take over');
  await until(bob, 'held');
  await closed(bob);
  await title(alice, 'You are no longer editing');
  await says(alice, /^Bob took over at \d\d:\d\d\.$/);
  await says(alice, 'What you have not saved is still in this page.');
  await bob.evaluate(() => lock.release());
  await says(alice, 'Nobody is editing now.');
  await press(alice, 'Edit again');
  await until(alice, 'held');
  await closed(alice);
});

story('a takeover applies only to the holder that was shown', async ({ server, person }) => {
  await server.acquire('alice', WORKSPACE);
  const bob = await app(await person(), server, 'bob');
  await press(bob, 'Edit the drawing');
  await press(bob, 'Take over…');
  await title(bob, 'Take over from alice?');
  await server.acquire('carol', WORKSPACE, { force: true });
  await title(bob, 'carol is editing');
  assert.equal(await bob.getByRole('button', { name: 'Take over', exact: true }).count(), 0);
});

story('a forbidden takeover is explained', async ({ server, person }) => {
  await server.acquire('alice', WORKSPACE);
  const bob = await app(await person(), server, 'bob');
  await press(bob, 'Edit the drawing');
  await says(bob, 'You are not allowed to take over here.');
  assert.ok(await bob.getByRole('button', { name: 'Take over…' }).isDisabled());
  assert.equal(await bob.evaluate(() => lock.state), 'held-by-other');
}, { LOCKHOUSE_LOCKS_TAKEOVER: 'nobody' });

story('the dialog shows that the lock has become free', async (there) => {
  const { alice, bob } = await two(there);
  await alice.evaluate(() => lock.release());
  await title(bob, 'It is free again');
  await press(bob, 'Edit');
  await until(bob, 'held');
  await closed(bob);
});

for (const [reason, text, end] of [
  ['revoked', 'root has ended it.', (server) => server.ask('root', 'DELETE', `/api/v1/workspaces/${WORKSPACE}/lock?force=true`)],
  ['released', 'It was released from elsewhere.', (server) => server.ask('alice', 'DELETE', `/api/v1/workspaces/${WORKSPACE}/lock`)],
  ['workspace_deleted', 'This workspace has been deleted.', async (server) => {
    await server.ask('root', 'PUT', `/api/v1/workspaces/${WORKSPACE}`, { name: 'A drawing' });
    await server.ask('root', 'DELETE', `/api/v1/workspaces/${WORKSPACE}`);
  }],
  ['member_removed', 'You are no longer a member of this workspace.', async (server) => {
    await server.ask('root', 'PUT', `/api/v1/workspaces/${WORKSPACE}`, { name: 'A drawing' });
    await server.ask('root', 'PUT', `/api/v1/workspaces/${WORKSPACE}/members/alice`, { role: 'editor' });
    await server.ask('root', 'DELETE', `/api/v1/workspaces/${WORKSPACE}/members/alice`);
  }],
]) {
  story(`lost: ${reason}`, async ({ server, person }) => {
    const alice = await app(await person(), server, 'alice');
    await press(alice, 'Edit the drawing');
    await until(alice, 'held');
    await end(server);
    await title(alice, 'You are no longer editing');
    await says(alice, text);
    await press(alice, 'Read only');
    await closed(alice);
    assert.equal(await alice.evaluate(() => lock.state), 'free');
  });
}

story('after a network failure: first reclaiming, then another holder', async ({ server, person }) => {
  const context = await person();
  const alice = await app(context, server, 'alice', 'alice', { ttlMs: 2_000 });
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  await context.setOffline(true);
  await title(alice, 'You are no longer editing');
  await says(alice, 'It could not be renewed in time. Trying to get it back…');
  await server.ask('bob', 'POST', `/api/v1/workspaces/${WORKSPACE}/lock`, { wait_ms: 20_000, ttl_ms: 60_000, name: 'Bob' });
  await context.setOffline(false);
  await says(alice, 'You were away for too long, and Bob began to edit.');
  await says(alice, 'Somebody else has had it since, so look at what has changed before you save.');
});

story('after a network failure without another holder, the lease is reclaimed', async ({ server, person }) => {
  const context = await person();
  const alice = await app(context, server, 'alice', 'alice', { ttlMs: 2_000 });
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  await context.setOffline(true);
  await title(alice, 'You are no longer editing');
  await context.setOffline(false);
  await until(alice, 'held');
  await closed(alice);
});

story('the holder sees a notice while the connection is lost', async ({ server, person }) => {
  const alice = await app(await person(), server, 'alice');
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  await server.kill();
  await noticed(alice).getByRole('heading', { name: 'Connection lost' }).waitFor();
  await server.restart();
  await noticed(alice).waitFor({ state: 'hidden' });
});

story('an unreachable server is shown', async ({ server, person }) => {
  const context = await person();
  const bob = await app(context, server, 'bob');
  await bob.evaluate(async () => {
    const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
    window.lock = new WorkspaceLock(new Lockhouse({ userId: 'bob', url: location.origin + '/away' }), 'x');
    await new Promise((resolve) => setTimeout(resolve));
    dialog.lock = lock;
    dialog.show();
  });
  await title(bob, 'The server cannot be reached');
  await press(bob, 'Try again');
  await bob.locator('lockhouse-dialog dialog .said.bad').waitFor();
});

story('a refused reclaim ends the message about reclaiming', async ({ server, person }) => {
  const context = await person();
  const alice = await app(context, server, 'alice', 'alice', { ttlMs: 1_000 });
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  const body = JSON.stringify({ type: 'urn:lockhouse:problem:not_a_member', code: 'not_a_member', status: 403, detail: 'Only editors and admins of this workspace may lock it.' });
  const refuse = (route) => (route.request().method() === 'POST' ? route.fulfill({ status: 403, contentType: 'application/problem+json', body }) : route.abort());
  await context.route('**/api/**', refuse);
  await until(alice, 'lost');
  // By an event or by the time; the requests after that are refused.
  await context.unroute('**/api/**');
  await context.route('**/lock', (route) => (route.request().method() === 'POST' ? refuse(route) : route.continue()));
  await says(alice, 'You were away for too long.');
});

story('an expired sign-in is shown', async ({ server, person }) => {
  const context = await person();
  const body = JSON.stringify({ type: 'urn:lockhouse:problem:unauthenticated', code: 'unauthenticated', status: 401, detail: 'Send a valid JWT in the header Authorization.' });
  await context.route('**/away/**', (route) => route.fulfill({ status: 401, contentType: 'application/problem+json', body }));
  const bob = await app(context, server, 'bob');
  await bob.evaluate(async () => {
    const { Lockhouse, WorkspaceLock } = await import('/client/index.js');
    dialog.lock = new WorkspaceLock(new Lockhouse({ userId: 'bob', token: 'over', url: location.origin + '/away' }), 'x');
    dialog.edit();
  });
  await title(bob, 'This cannot be edited now');
  await bob.locator('lockhouse-dialog .said.bad', { hasText: 'You are not signed in any more. Sign in again to edit.' }).waitFor();
});

story('a lock in another tab of the same person can be moved here', async ({ server, person }) => {
  const context = await person();
  const one = await app(context, server, 'alice');
  const two = await app(context, server, 'alice', 'alice', {}, false);
  await press(one, 'Edit the drawing');
  await until(one, 'held');
  await until(two, 'held-by-other');
  await press(two, 'Edit the drawing');
  await title(two, 'You are editing this in another tab');
  await press(two, 'Edit here');
  await until(two, 'held');
  await closed(two);
  await title(one, 'You are editing this in another tab');
});

story('the dialog works by keyboard, and gives the focus back', async (there) => {
  const { bob } = await two(there);
  const focused = () => bob.evaluate(() => (document.activeElement.shadowRoot?.activeElement ?? document.activeElement).textContent);
  // Not on a button, which a person who is typing would press.
  assert.equal(await focused(), 'Alice Martin is editing');
  const seen = [];
  for (let times = 0; times < 4; times++) {
    await bob.keyboard.press('Tab');
    seen.push(await focused());
  }
  assert.deepEqual(seen, ['Wait', 'Ask…', 'Take over…', 'Read only']);
  await bob.keyboard.press('Shift+Tab');
  await bob.keyboard.press('Enter');
  await title(bob, 'Take over from Alice Martin?');
  assert.equal(await focused(), 'Take over from Alice Martin?');
  await bob.keyboard.press('Escape');
  await title(bob, 'Alice Martin is editing');
  assert.equal(await focused(), 'Alice Martin is editing');
  await bob.keyboard.press('Escape');
  await closed(bob);
  assert.equal(await focused(), 'Edit the drawing');
  assert.deepEqual(await bob.evaluate(() => heard), ['open', 'close', 'readonly']);
  await bob.keyboard.press('Enter');
  await title(bob, 'Alice Martin is editing');
  await bob.keyboard.press('Tab');
  await bob.keyboard.press('Enter');
  await title(bob, 'You’re in the queue');
  assert.equal(await focused(), 'You’re in the queue');
  await bob.keyboard.press('Tab');
  await bob.keyboard.press('Tab');
  await bob.keyboard.press('Enter');
  await title(bob, 'Alice Martin is editing');
  await bob.keyboard.press('Escape');
  await closed(bob);
});

story('Escape goes one step back, then closes; so does the browser', async (there) => {
  const { bob } = await two(there);
  await bob.evaluate(() => dialog.shadowRoot.querySelector('dialog').close());
  await bob.waitForFunction(() => heard.includes('readonly'));
  assert.equal(await bob.evaluate(() => dialog.open), false);
  await press(bob, 'Edit the drawing');
  await title(bob, 'Alice Martin is editing');
});

story('an earlier error is not shown with a later state', async (there) => {
  const { alice, bob } = await two(there);
  await press(bob, 'Ask…');
  await press(bob, 'Ask');
  await noticed(alice).waitFor();
  await alice.evaluate(() => (lock.beforeRelease = () => { throw new Error('Not saved: no space.'); }));
  await press(alice, 'Save and hand over');
  await says(alice, 'Not saved: no space.');
  await there.server.acquire('carol', WORKSPACE, { force: true });
  await title(alice, 'You are no longer editing');
  assert.equal(await alice.getByText('Not saved: no space.').filter({ visible: true }).count(), 0);
});

story('a dialog that is closed and shown at once stays open', async (there) => {
  const { bob } = await two(there);
  await bob.evaluate(() => {
    heard.length = 0;
    dialog.close();
    dialog.show();
    // The event of the inner dialog comes with the next frame.
    return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)));
  });
  assert.deepEqual(await bob.evaluate(() => [heard, dialog.open]), [['close', 'open'], true]);
});

story('names are isolated in sentences, an empty name is replaced by the id, and the holder sees the queue', async ({ server, person }) => {
  const name = 'אליס (1)';
  const alice = await app(await person(), server, 'alice', name, { ttlMs: 6_000 });
  const bob = await app(await person(), server, 'bob', ' ');
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  await press(bob, 'Edit the drawing');
  await title(bob, `${name} is editing`);
  assert.equal(await bob.evaluate(() => dialog.shadowRoot.querySelector('h2 bdi').textContent), name);
  await press(bob, 'Wait');
  await title(alice, 'Somebody is waiting to edit');
  await press(alice, 'OK');
  await noticed(alice).waitFor({ state: 'hidden' });
  // It ends when bob holds the lock, or when the queue is empty.
  await bob.evaluate(() => { lock.ask().catch(() => {}); });
  await noticed(alice).getByRole('heading', { name: 'bob would like to edit' }).waitFor();
});

story('a lock in another browser of the same person is not called another tab', async ({ server, person }) => {
  const one = await app(await person(), server, 'alice');
  const two = await app(await person(), server, 'alice');
  await press(one, 'Edit the drawing');
  await until(one, 'held');
  await until(two, 'held-by-other');
  await press(two, 'Edit the drawing');
  await title(two, 'You are editing this elsewhere');
  await press(two, 'Edit here');
  await until(two, 'held');
});

story('the dialog has German, French and Spanish texts, and inherits no text style', async (there) => {
  const { bob } = await two(there);
  const say = async (lang, heading, button) => {
    await bob.evaluate((lang) => dialog.setAttribute('lang', lang), lang);
    await title(bob, heading);
    await bob.getByRole('button', { name: button, exact: true }).waitFor();
  };
  await say('de-AT', 'Alice Martin bearbeitet dies gerade', 'Nur lesen');
  await say('fr', 'Alice Martin modifie ce document', 'Lecture seule');
  await say('es-MX', 'Alice Martin está editando', 'Solo lectura');
  // Each language has all texts.
  assert.deepEqual(await bob.evaluate(async () => {
    const { TEXTS } = await import('/client/dialog.js');
    const names = (texts) => [...Object.keys(texts), ...Object.keys(texts.reasons)].sort().join();
    const all = await Promise.all(['de', 'fr', 'es'].map(async (lang) => (await import(`/client/dialog-${lang}.js`)).default));
    return all.map((texts) => names(texts) === names(TEXTS));
  }), [true, true, true]);
  await say('nl', 'Alice Martin is editing', 'Read only');
  const looks = await bob.evaluate(() => {
    Object.assign(document.body.style, { textAlign: 'right', letterSpacing: '5px', textTransform: 'uppercase', colorScheme: 'dark' });
    const { textAlign, letterSpacing, textTransform, colorScheme } = getComputedStyle(dialog.shadowRoot.querySelector('h2'));
    return [textAlign, letterSpacing, textTransform, colorScheme];
  });
  assert.deepEqual(looks, ['start', 'normal', 'none', 'dark']);
});

story('all or some texts can be replaced', async (there) => {
  const { bob } = await two(there);
  await bob.evaluate(() => {
    dialog.texts = {
      isEditing: (name) => `${name} bearbeitet das gerade`,
      wait: 'Warten',
      reasons: { revoked: (name) => `${name} hat das beendet.` },
    };
  });
  await title(bob, 'Alice Martin bearbeitet das gerade');
  await bob.getByRole('button', { name: 'Warten' }).waitFor();
  await bob.getByRole('button', { name: 'Read only' }).waitFor();
  assert.equal(await bob.evaluate(() => dialog.texts.reasons.taken_over('Bob', '14:03')), 'Bob took over at 14:03.');
  // The exported texts are not changed.
  assert.equal(await bob.evaluate(async () => (await import('/client/dialog.js')).TEXTS.wait), 'Wait');
});

story('text from users is not parsed as HTML', async ({ server, person }) => {
  const name = '<img src=x onerror=alert(1)>';
  const alice = await app(await person(), server, 'alice', name, { note: '<b onclick=alert(2)>note</b>' });
  const bob = await app(await person(), server, 'bob', '<svg onload=alert(3)>');
  await press(alice, 'Edit the drawing');
  await until(alice, 'held');
  await press(bob, 'Edit the drawing');
  await title(bob, `${name} is editing`);
  await says(bob, '“<b onclick=alert(2)>note</b>”');
  await press(bob, 'Ask…');
  await bob.keyboard.type('<script>alert(4)</script>');
  await press(bob, 'Ask');
  await noticed(alice).getByRole('heading', { name: '<svg onload=alert(3)> would like to edit' }).waitFor();
  await says(alice, '“<script>alert(4)</script>”');
  for (const page of [alice, bob]) {
    assert.equal(await page.evaluate(() => dialog.shadowRoot.querySelectorAll('img, svg, b, script').length), 0);
  }
});

story('the element can be removed, inserted again, and given another lock', async (there) => {
  const { alice, bob } = await two(there);
  await bob.evaluate(() => dialog.remove());
  assert.equal(await bob.evaluate(() => dialog.open), false);
  await bob.evaluate(() => document.body.append(dialog));
  await press(bob, 'Edit the drawing');
  await title(bob, 'Alice Martin is editing');
  await bob.evaluate(() => (dialog.lock = null));
  await closed(bob);
  await alice.evaluate(() => dialog.remove());
  await bob.evaluate(() => void lock.ask('?'));
  await alice.waitForFunction(() => lock.view.knock);
  assert.equal(await noticed(alice).count(), 0);
  await alice.evaluate(() => document.body.append(dialog));
  await noticed(alice).getByRole('heading', { name: 'Bob would like to edit' }).waitFor();
});

for (const look of LOOKS) {
  const where = `${look.viewport.width} px, ${look.colorScheme}`;
  story(`nobody is kept out of the dialog: ${where}`, async ({ server, person }) => {
    const [hers, his] = [await person({ ...look, bypassCSP: true }), await person({ ...look, bypassCSP: true })];
    const alice = await app(hers, server, 'alice', 'Alice Martin', { note: 'Moving the header' });
    const bob = await app(his, server, 'bob', 'Bob');
    await press(alice, 'Edit the drawing');
    await until(alice, 'held');
    await press(bob, 'Edit the drawing');
    await title(bob, 'Alice Martin is editing');
    await accessible(bob, 'held');
    const small = await bob.evaluate(() => [...dialog.shadowRoot.querySelectorAll('dialog button')].filter((button) => button.offsetHeight < 44 || button.offsetWidth < 44).length);
    assert.equal(small, 0);
    await press(bob, 'Take over…');
    await accessible(bob, 'confirm');
    await press(bob, 'Back');
    await press(bob, 'Ask…');
    await accessible(bob, 'ask');
    await press(bob, 'Ask');
    await title(bob, 'You’re in the queue');
    await accessible(bob, 'waiting');
    await noticed(alice).waitFor();
    await accessible(alice, 'knock');
    await press(alice, 'Not now');
    await press(bob, 'Stop waiting');
    await title(bob, 'Alice Martin is editing');
    await press(bob, 'Take over…');
    await press(bob, 'Take over');
    await title(alice, 'You are no longer editing');
    await accessible(alice, 'lost');
  });
}

story('a tab that waits without a place in the queue says so', async ({ server, person }) => {
  for (const id of ['one', 'two', 'design-42']) await server.acquire('bob', id);
  const alice = await app(await person(), server, 'alice');
  await alice.evaluate(async () => {
    const { WorkspaceLock } = await import('/client/index.js');
    for (const id of ['one', 'two']) new WorkspaceLock(lock.client, id).wait();
  });
  await press(alice, 'Edit the drawing');
  await press(alice, 'Wait');
  await says(alice, 'This browser already waits in two queues.');
  await server.ask('bob', 'DELETE', '/api/v1/workspaces/design-42/lock');
  await until(alice, 'held');
});
