// The documentation that the server shows: layout, accessibility and Content-Security-Policy.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { accessible, LOOKS, stories } from './pages.js';

const story = stories();

// The names of the pages, from their table.
const table = await readFile(new URL('../../../src/web/docs.rs', import.meta.url), 'utf8');
const PAGES = [...table.split('pages![')[1].split(']')[0].matchAll(/"([\w-]+)"/g)].map(([, name]) => name);
assert.ok(PAGES.length >= 15);
/** The page with pictures, one with wide tables, and the one with diagrams. */
const FEW = ['console', 'auth', 'concepts'];

for (const [number, look] of LOOKS.entries()) {
  const { width } = look.viewport;
  story(`the documentation is accessible and fits its width: ${width} ${look.colorScheme}`, async ({ server, person }) => {
    const context = await person({ ...look, bypassCSP: true });
    const page = await context.newPage();
    for (const [place, name] of [...PAGES, 'nothing'].entries()) {
      await page.goto(`${server.url}/docs/${name}`);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, `${name} is too wide`);
      // A page with every kind of element is looked at in all four ways, and each other page in one of them.
      if (FEW.includes(name) || place % LOOKS.length === number) await accessible(page, `${name} at ${width}`);
    }
    await page.goto(server.url + '/docs');
    assert.equal(await page.locator('h1').textContent(), 'Start');
    if (width < 600) await page.getByText('Menu').click();
    await accessible(page, `the menu at ${width}`);
    const menu = page.getByRole('navigation', { name: 'Pages' });
    await menu.getByRole('link', { name: 'Concepts' }).click();
    await page.waitForURL('**/docs/concepts');
    if (width < 600) await page.getByText('Menu').click();
    await menu.getByRole('link', { name: 'Fence', exact: true }).click();
    await page.waitForURL('**/docs/concepts#fence');
  });
}

story('no page of the documentation breaks the policy or asks another server', async ({ server, person }) => {
  const context = await person({});
  const page = await context.newPage();
  const elsewhere = [];
  page.on('request', (request) => new URL(request.url()).origin === server.url || elsewhere.push(request.url()));
  for (const name of PAGES) {
    await page.goto(`${server.url}/docs/${name}`);
    const broken = await page.evaluate(() => [...document.images].filter((image) => !image.naturalWidth).map(({ src }) => src));
    assert.deepEqual(broken, [], name);
  }
  assert.deepEqual(elsewhere, []);
});

story('the console and the playground show the way to the documentation', async ({ server, person }) => {
  const context = await person({});
  for (const path of ['/', '/demo']) {
    const page = await context.newPage();
    await page.goto(server.url + path);
    await page.getByRole('link', { name: 'Documentation' }).click();
    await page.waitForURL('**/docs');
  }
});
