import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { Server, browser } from './server.js';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** @type {import('playwright-core').Browser} */
let chromium;

/** Runs a test with people in separate browsers, and expects no error in any page. */
export function stories() {
  before(async () => (chromium = await browser()));
  after(() => chromium.close());
  return story;
}

/** @param {string} name
 * @param {(context: { server: Server, person: (options?: import('playwright-core').BrowserContextOptions) => Promise<import('playwright-core').BrowserContext> }) => Promise<void>} tell
 * @param {Record<string, string>} [settings] */
function story(name, tell, settings) {
  test(name, { timeout: 300_000 }, async () => {
    const server = await Server.start(settings);
    const people = [];
    const wrong = [];
    const person = async (options) => {
      const context = await chromium.newContext({ reducedMotion: 'reduce', ...options });
      people.push(context);
      context.on('weberror', (error) => wrong.push(String(error.error())));
      // The browser logs a refused request, or a stopped server, as an error. Tests expect those.
      context.on('console', (said) => {
        if (['error', 'warning'].includes(said.type()) && !/Failed to load resource/.test(said.text())) wrong.push(said.text());
      });
      context.on('dialog', (dialog) => wrong.push('alert: ' + dialog.message()));
      await context.addInitScript(() => {
        addEventListener('securitypolicyviolation', (event) => console.error('policy: ' + event.violatedDirective, event.blockedURI));
      });
      return context;
    };
    try {
      await tell({ server, person });
      assert.deepEqual(wrong, []);
    } finally {
      await Promise.all(people.map((context) => context.close()));
      await server.stop();
    }
  });
}

/** Expects no violation of axe-core's rules for WCAG 2.2 AA and best practices. The context needs `bypassCSP`.
 * @param {import('playwright-core').Page} page @param {string} where */
export async function accessible(page, where) {
  await page.addScriptTag({ content: AXE });
  const violations = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.map(({ id, nodes }) => [id, ...nodes.map(({ target, failureSummary }) => `${target}: ${failureSummary}`)]);
  });
  assert.deepEqual(violations, [], where);
}

export const LOOKS = [
  { viewport: { width: 1440, height: 900 }, colorScheme: 'light' },
  { viewport: { width: 1440, height: 900 }, colorScheme: 'dark' },
  { viewport: { width: 375, height: 812 }, colorScheme: 'light' },
  { viewport: { width: 375, height: 812 }, colorScheme: 'dark' },
];
