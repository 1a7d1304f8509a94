// What the tests of the web console share.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Server, browser } from './server.js';

/** @type {import('playwright-core').Browser} */
export let chromium;

/** One browser for the tests of a file. */
export function useBrowser() {
  before(async () => (chromium = await browser()));
  after(() => chromium.close());
}

/** A story on a server of its own, in which `open` opens the console. Whatever the browser complains of is a defect;
 * that a request was refused or failed is none. */
export function story(name, tell, settings, file) {
  test(name, { timeout: 300_000 }, async () => {
    const server = await Server.start(settings, file);
    const context = await chromium.newContext();
    const complaints = [];
    try {
      const open = async (hash = '') => {
        const page = await context.newPage();
        page.setDefaultTimeout(30_000);
        page.on('console', (message) => {
          if (['error', 'warning'].includes(message.type()) && !message.text().startsWith('Failed to load resource'))
            complaints.push(message.text());
        });
        page.on('pageerror', (error) => complaints.push(String(error)));
        page.on('dialog', (dialog) => (complaints.push(`a dialog: ${dialog.message()}`), dialog.dismiss()));
        await page.goto(server.url + '/' + hash);
        return page;
      };
      await tell({ server, open, context });
      assert.deepEqual(complaints, []);
    } finally {
      await context.close();
      await server.stop();
    }
  });
}

export const row = (page, workspace) =>
  page.locator('tbody tr').filter({ has: page.getByRole('link', { name: workspace, exact: true }) });
export const answer = async (page, { reason, button }) => {
  const dialog = page.getByRole('dialog');
  if (reason) await dialog.getByLabel('Reason').fill(reason);
  await dialog.getByRole('button', { name: button }).click();
  await dialog.waitFor({ state: 'detached' });
};
export const signIn = async (page, token) => {
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
};
export const isLive = (page) => page.locator('#connection[data-state=live]').waitFor();
/** Waits until there is this text. */
export const reads = (locator, text) => locator.filter({ hasText: text }).first().waitFor();
