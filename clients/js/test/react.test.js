import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { stories } from './pages.js';
import { until } from './server.js';

const story = stories();

/** A React app. Its components write the state of the lock into the page and count their renders. */
const APP = `
  import { StrictMode, useState } from 'react';
  import { createRoot } from 'react-dom/client';
  import { Lockhouse } from './src/index.js';
  import './src/dialog.js';
  import { useWorkspaceLock } from './src/react.js';

  const client = new Lockhouse({ userId: window.userId });
  window.renderings = 0;
  window.actions = new Set();
  const Editor = ({ id }) => {
    const lock = useWorkspaceLock(client, id, { sessionId: 'tab-' + window.userId });
    window.lock = lock.lock;
    window.renderings++;
    window.actions.add(lock.acquire);
    return <section>
      <output>{lock.state} {lock.holder?.locked_by_user_id} {lock.fence}</output>
      <button onClick={() => lock.acquire()}>Edit</button>
      <button onClick={() => lock.release()}>Done</button>
      <lockhouse-dialog lock={lock.lock} />
    </section>;
  };
  const Badge = ({ id }) => <i>{useWorkspaceLock(client, id).state}</i>;
  const App = () => {
    const [{ id, isThere, hasBadge }, set] = useState({ id: 'one', isThere: true, hasBadge: true });
    window.set = (more) => set((now) => ({ ...now, ...more }));
    return <>{isThere && <Editor id={id} />}{hasBadge && <Badge id={id} />}</>;
  };
  const root = createRoot(document.getElementById('app'));
  root.render(window.isStrict ? <StrictMode><App /></StrictMode> : <App />);
  window.stop = () => root.unmount();
`;

const { outputFiles: [{ text: BUNDLE }] } = await build({
  stdin: { contents: APP, loader: 'jsx', resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
  bundle: true, write: false, jsx: 'automatic', format: 'esm', define: { 'process.env.NODE_ENV': '"development"' },
});

/** @param {import('playwright-core').BrowserContext} context */
async function app(context, server, userId, isStrict) {
  await context.route('**/app', (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>An app</title><link rel="icon" href="data:,"><div id="app"></div><script type="module" src="/app.js"></script>' }));
  await context.route('**/app.js', (route) => route.fulfill({ contentType: 'text/javascript', body: `window.userId = '${userId}'; window.isStrict = ${isStrict};` + BUNDLE }));
  const page = await context.newPage();
  const asked = [];
  page.on('request', (request) => asked.push(new URL(request.url()).pathname + ' ' + request.method()));
  await page.goto(server.url + '/app');
  return { page, asked };
}

const says = (page, text) => page.locator('output', { hasText: text }).waitFor();
const locked = async (server, id) => (await server.ask('root', 'GET', `/api/v1/workspaces/${id}/lock`)).lock?.locked_by_user_id ?? null;

/** Polls the server until the condition holds. */
async function settled(server, id, user) {
  while ((await locked(server, id)) !== user) await new Promise((resolve) => setTimeout(resolve, 20));
}

for (const isStrict of [true, false]) {
  story(`a component locks, shows who has it, and lets go when it is gone${isStrict ? ', in strict mode' : ''}`, async ({ server, person }) => {
    const { page, asked } = await app(await person(), server, 'alice', isStrict);
    await says(page, 'free');
    await page.waitForFunction(() => lock.view.isConnected);
    // One lock for all components, also when they are mounted twice.
    assert.equal(asked.filter((request) => request.endsWith('/events GET')).length, 1);
    await page.getByRole('button', { name: 'Edit' }).click();
    await says(page, /held alice \d+/);
    assert.equal(await page.locator('i').textContent(), 'held');
    // The actions keep their identity, so effects that depend on them do not run again.
    assert.equal(await page.evaluate(() => actions.size), 1);
    assert.ok(await page.evaluate(() => renderings) < 30);
    // One of the two is still mounted.
    await page.evaluate(() => set({ isThere: false }));
    await page.waitForFunction(() => !document.querySelector('output'));
    assert.equal(await locked(server, 'one'), 'alice');
    assert.equal(await page.locator('i').textContent(), 'held');
    await page.evaluate(() => set({ hasBadge: false }));
    await settled(server, 'one', null);
  });
}

story('a new workspace id opens another lock', async ({ server, person }) => {
  const { page } = await app(await person(), server, 'alice', true);
  await says(page, 'free');
  await page.getByRole('button', { name: 'Edit' }).click();
  await says(page, 'held alice');
  await page.evaluate(() => set({ id: 'two' }));
  await says(page, 'free');
  await settled(server, 'one', null);
  await page.getByRole('button', { name: 'Edit' }).click();
  await says(page, 'held alice');
  assert.equal(await locked(server, 'two'), 'alice');
  await page.evaluate(() => stop());
  await settled(server, 'two', null);
});

story('changes by others cause a render, and the dialog takes the lock as a property', async ({ server, person }) => {
  const { page } = await app(await person(), server, 'alice', true);
  await says(page, 'free');
  await page.getByRole('button', { name: 'Edit' }).click();
  await until(page, 'held');
  await page.waitForFunction(() => lock.view.isConnected);
  await server.acquire('bob', 'one', { force: true });
  await says(page, 'lost bob');
  await page.getByRole('heading', { name: 'You are no longer editing' }).waitFor();
});
