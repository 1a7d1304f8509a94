import { useEffect, useRef, useState } from 'react';
import { Lockhouse } from 'lockhouse';
import type { LockhouseDialog } from 'lockhouse/dialog';
import 'lockhouse/dialog';
import { useWorkspaceLock } from 'lockhouse/react';
import { authorize, documentUrl, lockhouse, open, token, userId } from './back-end.js';

// One for the whole app.
const client = new Lockhouse({ url: lockhouse, userId, token });
const other = userId === 'alice' ? 'bob' : 'alice';

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** Calls the back end. Throws an error that says why it was refused. */
async function send(how: Fetch, url: string, init: RequestInit = {}) {
  const response = await how(url, authorize(init));
  const body = await response.text();
  if (!response.ok) throw new Error(`Refused by the server (${response.status}): ${body}`);
  return body;
}

export function Editor({ id }: { id: string }) {
  const [text, setText] = useState('');
  const [saved, setSaved] = useState('');
  const [loaded, setLoaded] = useState<number | null>(null); // the fence with which the text was loaded
  const [said, setSaid] = useState({ what: '', isRefusal: false });
  const dialog = useRef<LockhouseDialog>(null);
  // The dialog offers "Save and hand over".
  const beforeRelease = () => (text === saved ? undefined : store(withFence));
  const { state, fence, holder, lock, activity, release, fetch: withFence } = useWorkspaceLock(client, id, { beforeRelease });
  const mayEdit = state === 'held' && loaded === fence;

  const say = (what: string) => setSaid({ what, isRefusal: false });
  const fail = (error: unknown) => setSaid({ what: (error as Error).message, isRefusal: true });

  useEffect(() => {
    if (!lock) return;
    const show = (body: string) => { setText(body); setSaved(body); };
    send(fetch, documentUrl).then((body) => { if (lock.state !== 'held') show(body); }, fail); // reading needs no lock
    const listening = new AbortController();
    // The text is loaded with the fence, before the person can type: somebody else may have edited.
    lock.addEventListener('held', async ({ detail: { fence, isNew } }) => {
      if (!isNew) return;
      setLoaded(null);
      try {
        const body = await send((url, init) => lock.fetch(url, init), open.url, { method: open.method });
        if (lock.fence !== fence) return;
        show(body);
        setLoaded(fence);
        say('');
      } catch (error) {
        fail(error);
      }
    }, { signal: listening.signal });
    return () => listening.abort();
  }, [lock]);

  async function store(how: Fetch) {
    await send(how, documentUrl, { method: 'PUT', body: text });
    setSaved(text);
    say('Saved.');
  }

  // What the client never does: it sends a save with a fence that is over. The back end must refuse it.
  const withLateFence: Fetch = (url, init) => fetch(url, { ...init, headers: { ...init.headers, 'X-Lock-Fence': String(loaded) } });

  const name = holder?.locked_by_name ?? holder?.locked_by_user_id;
  const others = name ? `${name} is editing.` : 'Nobody is editing.';
  const states = { held: 'You are editing.', lost: `You are no longer editing. ${others}`, unknown: 'Lockhouse does not answer.' };

  return (
    <>
      <main>
        <header>
          <h1>{id}</h1>
          <p>You are <b>{userId}</b>. Open <a href={'?user=' + other} target="_blank" rel="noopener">{other}</a> in a second window.</p>
        </header>
        <p id="state" role="status" data-state={state}>{state in states ? states[state as keyof typeof states] : others}</p>
        <textarea id="text" aria-label="The document" rows={8} readOnly={!mayEdit} value={text}
          onChange={(event) => { setText(event.target.value); activity(); say(''); }} />
        <nav>
          <button id="edit" disabled={state === 'held'} onClick={() => dialog.current?.edit()}>Edit</button>
          <button id="save" disabled={!mayEdit} onClick={() => store(withFence).catch(fail)}>Save</button>
          <button id="done" disabled={state !== 'held'} onClick={() => release().then(() => setLoaded(null), fail)}>Done</button>
          {loaded !== null && state !== 'held' && (
            <button id="late" onClick={() => store(withLateFence).catch(fail)}>Save late, as a slow network would</button>
          )}
        </nav>
        <p id="said" role="alert" data-refused={said.isRefusal || undefined}>{said.what}</p>
      </main>
      <lockhouse-dialog ref={dialog} lock={lock} />
    </>
  );
}
