// The story of an example, told in two windows of one browser: node example-story.js URL. Run by tests/examples.rs.
// With SCREENSHOTS=FOLDER it keeps pictures.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { browser } from './server.js';

const TIMEOUT = 60_000;
const [, , url] = process.argv;
const { SCREENSHOTS } = process.env;

const chromium = await browser();
try {
  const context = await chromium.newContext({ reducedMotion: 'reduce', viewport: { width: 900, height: 700 } });
  context.setDefaultTimeout(TIMEOUT);
  const wrong = [];
  context.on('weberror', (error) => wrong.push(String(error.error())));
  // A refused save is logged by the browser.
  context.on('console', (said) => {
    if (['error', 'warning'].includes(said.type()) && !/Failed to load resource/.test(said.text())) wrong.push(said.text());
  });

  /** A window of a person. @param {string} userId */
  const open = async (userId) => {
    const page = await context.newPage();
    await page.goto(`${url}/?user=${userId}`);
    return {
      page,
      says: (id, text) => page.locator('#' + id, { hasText: text }).waitFor(),
      shows: (text) => page.waitForFunction((text) => document.querySelector('#text').value === text, text),
      mayEdit: (is) => page.waitForFunction((is) => document.querySelector('#text').readOnly !== is, is),
      press: (name) => page.locator('lockhouse-dialog').getByRole('button', { name, exact: true }).click(),
      picture: (name) => SCREENSHOTS && page.screenshot({ path: join(SCREENSHOTS, name + '.png') }),
    };
  };
  const [alice, bob] = [await open('alice'), await open('bob')];

  // Alice edits and saves. Bob sees it.
  await alice.says('state', 'Nobody is editing.');
  await alice.mayEdit(false);
  await alice.page.click('#edit');
  await alice.mayEdit(true);
  await alice.page.fill('#text', 'It is on Friday.');
  await alice.page.click('#save');
  await alice.says('said', 'Saved.');
  await alice.picture('1-alice-edits');
  await bob.says('state', /^alice is editing\.$/i);
  await bob.mayEdit(false);

  // Bob takes over what Alice has saved. She sees it, and may no longer type.
  await alice.page.fill('#text', 'It is on Saturday.');
  await bob.page.click('#edit');
  await bob.picture('2-bob-asks');
  await bob.press('Take over…');
  await bob.press('Take over');
  await bob.mayEdit(true);
  await bob.shows('It is on Friday.');
  await alice.mayEdit(false);
  await alice.says('state', 'You are no longer editing.');
  await alice.page.locator('lockhouse-dialog').getByText('Bob').or(alice.page.locator('lockhouse-dialog').getByText('bob')).first().waitFor();
  await alice.picture('3-alice-has-lost-it');

  // Her late save is refused by the back end, and the page says so. Her text is still there.
  await alice.page.keyboard.press('Escape');
  await alice.page.click('#late');
  await alice.says('said', /^Refused by the server \(40[39]\)/);
  await alice.shows('It is on Saturday.');
  await alice.picture('4-the-late-save-is-refused');

  // Bob saves and is done. Alice edits again, from his text; hers is offered beside it.
  await bob.page.fill('#text', 'It is on Monday.');
  await bob.page.click('#save');
  await bob.says('said', 'Saved.');
  await bob.page.click('#done');
  await bob.says('state', 'Nobody is editing.');
  await alice.page.click('#edit');
  await alice.mayEdit(true);
  await alice.shows('It is on Monday.');
  assert.deepEqual(wrong, []);
} finally {
  await chromium.close();
}
