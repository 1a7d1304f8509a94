// The page: one document, one lock. back-end.js says how the app is called.
import { authorize, documentUrl, lockhouse, open, token, userId } from './back-end.js';

const { Lockhouse, WorkspaceLock } = await import(lockhouse + '/client/index.js');
const { Draft } = await import(lockhouse + '/client/draft.js');
await import(lockhouse + '/client/dialog.js');

const [me, other, state, text, edit, save, done, late, said, dialog] = ['me', 'other', 'state', 'text', 'edit', 'save', 'done', 'late', 'said', 'dialog']
  .map((id) => document.getElementById(id));
me.textContent = userId;
other.textContent = userId === 'alice' ? 'bob' : 'alice';
other.href = '?user=' + other.textContent;

const client = new Lockhouse({ url: lockhouse, userId, token });
const beforeRelease = () => draft.isUnsaved && store(); // the dialog offers "Save and hand over"
const lock = new WorkspaceLock(client, 'design-42', { beforeRelease });
const draft = new Draft(lock, (body) => { text.value = body; }); // keeps unsaved text on this device
dialog.lock = lock;

/** Calls the back end, and says what came of it. Returns the text of the answer; undefined when it was refused. */
async function send(how, url, init) {
  try {
    const response = await how(url, authorize(init));
    if (response.ok) return await response.text();
    say(`Refused by the server (${response.status}): ${await response.text()}`, true);
  } catch (error) {
    say(error.message, true); // NotHeld: this tab has no lock, and nothing was sent
  }
  return undefined;
}

function say(what, isRefusal = false) {
  said.textContent = what;
  said.toggleAttribute('data-refused', isRefusal);
}

/** `fetch` with the fence of the lock. */
const withFence = (url, init) => lock.fetch(url, init);

let loaded = null; // the fence with which the text was loaded
function show() {
  const { state: now, holder } = lock.view;
  const name = holder?.locked_by_name ?? holder?.locked_by_user_id;
  const others = name ? `${name} is editing.` : 'Nobody is editing.';
  const texts = { free: 'Nobody is editing.', held: 'You are editing.', lost: `You are no longer editing. ${others}`, unknown: 'Lockhouse does not answer.' };
  state.textContent = texts[now] ?? others;
  state.dataset.state = now;
  const mayEdit = now === 'held' && loaded === lock.fence;
  text.readOnly = save.disabled = !mayEdit;
  done.disabled = now !== 'held';
  edit.disabled = now === 'held';
  late.hidden = now === 'held' || loaded === null;
}
lock.addEventListener('change', show);

// The text is loaded with the fence, before the person can type: somebody else may have edited.
lock.addEventListener('held', async ({ detail: { fence, isNew } }) => {
  if (isNew || loaded === null) {
    loaded = null;
    show();
    const body = await send(withFence, open.url, { method: open.method });
    if (body === undefined || lock.fence !== fence) return;
    draft.begin(body); // shows it, and offers unsaved text beside it
    say('');
  }
  loaded = fence;
  show();
});

async function store() {
  const body = text.value;
  if ((await send(withFence, documentUrl, { method: 'PUT', body })) === undefined) throw new Error(said.textContent);
  draft.saved(body);
  say('Saved.');
}

text.addEventListener('input', () => { lock.activity(); draft.keep(text.value); say(''); });
edit.addEventListener('click', () => dialog.edit());
done.addEventListener('click', () => {
  lock.release().then(() => { loaded = null; show(); }, (error) => say(error.message, true));
});
save.addEventListener('click', () => store().catch(() => {})); // send() has said why
// What lock.fetch never does: it sends a save with a fence that is over. The back end must refuse it.
late.addEventListener('click', async () => {
  const init = { method: 'PUT', body: text.value, headers: { 'X-Lock-Fence': String(loaded) } };
  if ((await send(fetch, documentUrl, init)) !== undefined) say('Saved: nobody has begun to edit since.');
});

show();
send(fetch, documentUrl, {}).then((body) => { if (loaded === null) text.value = body ?? ''; }); // reading needs no lock
