import assert from 'node:assert/strict';
import { LOOKS, accessible, stories } from './pages.js';

const story = stories();

/** Opens the playground, with its two people.
 * @param {import('playwright-core').BrowserContext} context @param {import('./server.js').Server} server */
async function open(context, server, search = '') {
  const page = await context.newPage();
  await page.goto(server.url + '/demo' + search);
  const [alice, bob] = ['left', 'right'].map((side) => someone(page.locator('.person.' + side)));
  return { page, alice, bob };
}

/** @param {import('playwright-core').Locator} root */
const someone = (root) => ({
  root,
  text: root.locator('textarea'),
  press: (name) => root.getByRole('button', { name, exact: true }).click(),
  title: (name) => root.getByRole('heading', { name, exact: true }).waitFor(),
  says: (text) => root.getByText(text).filter({ visible: true }).first().waitFor(),
  is: (state) => root.locator('.state', { hasText: state }).waitFor(),
});

const logs = (page, text) => page.locator('#log li', { hasText: text }).first().waitFor();
const outcome = (page, text) => page.locator('#outcome', { hasText: text }).waitFor();

story('the second person can wait, ask, be declined and take over, and a late save is refused', async ({ server, person }) => {
  const { page, alice, bob } = await open(await person(), server);
  await page.locator('#log[data-follows]').waitFor();
  await alice.press('Edit');
  await alice.is('Editing');
  await alice.text.fill('One line by Alice.');
  await alice.is('Editing, not saved');
  await alice.press('Save');
  await outcome(page, 'Saved by Alice with fence');
  await logs(page, 'Alice has the lock');
  assert.equal(await bob.text.inputValue(), 'One line by Alice.');
  assert.equal(await bob.text.evaluate(({ readOnly }) => readOnly), true);
  await alice.says(/^heartbeat/);
  await alice.says(/^The lease has \d+ s$/);

  await bob.press('Edit');
  await bob.title('Alice Martin is editing');
  await bob.press('Ask…');
  await bob.root.getByLabel('Message (optional)').fill('May I?');
  await bob.press('Ask');
  await bob.is('Waiting in line');
  await alice.title('Bob Dupont would like to edit');
  await alice.press('Not now');
  await bob.says('Alice Martin keeps it for now.');
  await logs(page, 'Bob asks for it: “May I?”');
  await logs(page, 'Alice keeps it');

  await alice.text.fill('Two lines by Alice.');
  await alice.press('Save slowly');
  await bob.press('Stop waiting');
  await bob.press('Take over…');
  await bob.press('Take over');
  await bob.is('Editing');
  await alice.is('No longer editing, not saved');
  await alice.title('You are no longer editing');
  await logs(page, 'Bob has taken over from Alice');
  await page.getByRole('button', { name: 'Let it arrive: the save by Alice' }).click();
  await outcome(page, /^Refused what Alice saved: fence .+ is older than .+\.$/);
  assert.equal(await page.locator('#saved').textContent(), 'One line by Alice.');

  // Her text stays. She asks, and he hands the lock over.
  assert.equal(await alice.text.inputValue(), 'Two lines by Alice.');
  await alice.press('Ask…');
  await alice.press('Ask');
  await bob.press('Save and hand over');
  // The saved text has not changed, so her text is restored, with a notice.
  await alice.is('Editing, not saved');
  await alice.title(/^Your text from .* is back$/);
  await alice.press('Save');
  await outcome(page, 'Saved by Alice');
  await alice.press('Done');
  await alice.is('Reading');
  await logs(page, 'Alice has released it');
});

story('unsaved text does not overwrite a newer save without a choice', async ({ server, person }) => {
  const { page, alice, bob } = await open(await person(), server);
  await alice.press('Edit');
  await alice.is('Editing');
  await alice.text.fill('Typed by Alice.');
  await alice.is('Editing, not saved');
  await bob.press('Edit');
  await bob.press('Take over…');
  await bob.press('Take over');
  await bob.is('Editing');
  await bob.text.fill('Saved by Bob.');
  await bob.press('Save');
  await outcome(page, 'Saved by Bob');
  await bob.press('Done');
  await alice.press('Edit again');
  await alice.is('Editing');
  assert.equal(await alice.text.inputValue(), 'Saved by Bob.');
  await alice.press('Save');
  assert.equal(await page.locator('#saved').textContent(), 'Saved by Bob.');
  // She sees both texts, and who saved.
  await alice.title(/^Your text from .* was not saved$/);
  await alice.says(/^Bob Dupont has edited since/);
  assert.equal(await alice.root.locator('lockhouse-dialog section pre').textContent(), 'Typed by Alice.');
  await alice.press('Use my text');
  assert.equal(await alice.text.inputValue(), 'Typed by Alice.');
  await alice.is('Editing, not saved');
  assert.equal(await page.locator('#saved').textContent(), 'Saved by Bob.');
});

story('after a crash the waiting person is granted the lock when the lease expires', async ({ server, person }) => {
  const { page, alice, bob } = await open(await person(), server);
  await alice.press('Edit');
  await alice.is('Editing');
  await bob.press('Edit');
  await bob.press('Wait');
  await bob.is('Waiting in line');
  await alice.press('Crash this tab');
  await alice.is('Crashed');
  await alice.says(/^The lease runs on for \d+ s$/);
  await bob.is('Editing');
  await logs(page, 'Alice’s lease has run out');
  await alice.says('The lease is over');
  await alice.press('Open it again');
  await alice.is('Reading');
  await alice.press('Edit');
  await alice.title('Bob Dupont is editing');
  await alice.press('Wait');
  await bob.press('Done');
  await alice.is('Editing');
});

story('after a crash the person can return in another tab during the lease', async ({ server, person }) => {
  const { alice } = await open(await person(), server);
  await alice.press('Edit');
  await alice.is('Editing');
  await alice.press('Crash this tab');
  await alice.press('Open it again');
  await alice.press('Edit');
  await alice.title('You are editing this elsewhere');
  await alice.press('Edit here');
  await alice.is('Editing');
});

story('the duration of the leases can be chosen', async ({ server, person }) => {
  const { page, alice } = await open(await person(), server);
  await alice.press('Edit');
  await alice.is('Editing');
  await page.getByRole('radio', { name: '10 min' }).check();
  await alice.says('The lease has 10 min');
  await alice.is('Editing');
  await page.getByRole('radio', { name: '30 s' }).check();
  await alice.says(/^The lease has (30|2\d) s$/);
});

story('each visit has its own workspace, and a shared address the same one', async ({ server, person }) => {
  const one = await open(await person(), server);
  const two = await open(await person(), server);
  await one.page.locator('#log[data-follows]').waitFor();
  await two.page.locator('#log[data-follows]').waitFor();
  const [a, b] = await Promise.all([one, two].map(({ page }) => page.locator('#workspace').textContent()));
  assert.match(a, /^demo-[0-9a-f]{8}$/);
  assert.notEqual(a, b);
  const [here, there] = [await open(await person(), server, '?workspace=ours'), await open(await person(), server, '?workspace=ours')];
  await there.page.locator('#log[data-follows]').waitFor();
  await here.alice.press('Edit');
  await here.alice.is('Editing');
  await there.bob.press('Edit');
  await there.bob.title('Alice Martin is editing');
});

story('in token mode the playground asks for tokens', async ({ server, person }) => {
  const token = async (user, name) => (await server.run('token', 'create', '--user', user, '--name', name, '--scope', 'user')).split('\n').at(-1);
  const [carla, dan] = [await token('carla', 'Carla Rossi'), await token('dan', 'Dan Ek')];
  const { page, alice, bob } = await open(await person(), server);
  const fill = async (left, right) => {
    await page.getByLabel('Token of the one on the left').fill(left);
    await page.getByLabel('Token of the one on the right').fill(right);
    await page.getByRole('button', { name: 'Begin' }).click();
  };
  await fill(carla, carla);
  await page.getByRole('alert').filter({ hasText: 'Both are tokens of one person' }).waitFor();
  await fill(carla, 'nonsense');
  await page.getByRole('alert').filter({ hasText: /\w/ }).filter({ hasNotText: 'Both' }).waitFor();
  await fill(carla, dan);
  await alice.press('Edit');
  await alice.is('Editing');
  await bob.press('Edit');
  await bob.title('Carla Rossi is editing');
}, { LOCKHOUSE_AUTH_MODE: 'token', LOCKHOUSE_SERVER_DEMO: 'on' });

story('the playground works by keyboard', async ({ server, person }) => {
  const { page, alice, bob } = await open(await person(), server);
  await alice.root.getByRole('button', { name: 'Edit' }).focus();
  await page.keyboard.press('Enter');
  await alice.is('Editing');
  // The editor has the focus.
  await page.waitForFunction(() => document.activeElement.matches('.person.left textarea'));
  await page.keyboard.press('Control+End');
  await page.keyboard.type('By hand.');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await outcome(page, 'Saved by Alice');
  await bob.root.getByRole('button', { name: 'Edit' }).focus();
  await page.keyboard.press('Enter');
  await bob.title('Alice Martin is editing');
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Edit');
  // A notice for one person does not take the focus from the other.
  await page.keyboard.press('Enter');
  await bob.press('Take over…');
  await bob.press('Take over');
  await alice.title('You are no longer editing');
  await page.waitForFunction(() => document.activeElement.matches('.person.right textarea'));
});

story('the controls are visible without scrolling', async ({ server, person }) => {
  const { page, alice } = await open(await person({ viewport: { width: 1440, height: 900 } }), server);
  await alice.is('Reading');
  const { y, height } = await page.locator('#ideas').boundingBox();
  assert.ok(y >= 0 && y + height <= 900, `it ends at ${y + height}`);
});

for (const look of LOOKS) {
  const where = `${look.viewport.width} px, ${look.colorScheme}`;
  story(`the playground is accessible: ${where}`, async ({ server, person }) => {
    const { page, alice, bob } = await open(await person({ ...look, bypassCSP: true }), server);
    await alice.is('Reading');
    await accessible(page, 'free');
    await alice.press('Edit');
    await alice.is('Editing');
    await alice.text.fill('A text.');
    await alice.press('Save');
    await alice.press('Save slowly');
    await bob.press('Edit');
    await bob.title('Alice Martin is editing');
    await accessible(page, 'held');
    await bob.press('Ask…');
    await bob.press('Ask');
    await alice.title('Bob Dupont would like to edit');
    await accessible(page, 'asked');
    await alice.press('Save and hand over');
    await bob.is('Editing');
    await page.getByRole('button', { name: 'Let it arrive: the save by Alice' }).click();
    await outcome(page, 'Refused');
    await bob.press('Crash this tab');
    await bob.is('Crashed');
    await accessible(page, 'gone');
    const isTooWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(isTooWide, false, 'it fits');
    const small = await page.evaluate(() => [...document.querySelectorAll('button, .lease label')].filter((button) => button.checkVisibility() && button.getBoundingClientRect().height < 44).length);
    assert.equal(small, 0, 'what is pressed is large enough');
  });
}
