// Who edits what, in a file. It is written before an event is confirmed, so nothing is lost when the app stops.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';

const { DATA, LOCKHOUSE, LOCKHOUSE_TOKEN } = process.env;
const file = `${DATA}/editing.json`;
/** `revision`: the last event that was taken. `users`: by workspace. */
let state = { revision: 0, users: {} };
try {
  state = JSON.parse(readFileSync(file, 'utf8'));
} catch (error) {
  if (error.code !== 'ENOENT') throw error;
}

function keep(next) {
  writeFileSync(`${file}.new`, JSON.stringify(next));
  renameSync(`${file}.new`, file);
  state = next;
}

/** The next holder, by the type of the event. All other types that are not here end the lock. */
const NEXT = {
  'lock.acquired': ({ user_id }) => user_id,
  'lock.taken_over': ({ by_user_id }) => by_user_id,
  'lock.handed_over': ({ detail }) => detail.to_user_id,
};
const NO_CHANGE = ['lock.knocked', 'lock.knock_declined'];

/** Takes an event. One that comes again changes nothing. */
export async function take(event) {
  if (event.type === 'reset') return keep({ revision: 0, users: await readLocks() });
  if (event.revision <= state.revision) return;
  const users = { ...state.users };
  if (!NO_CHANGE.includes(event.type)) {
    const next = NEXT[event.type]?.(event);
    if (next) users[event.workspace_id] = next;
    else delete users[event.workspace_id];
  }
  keep({ revision: event.revision, users });
}

/** The holders of all locks: events were missed. */
async function readLocks() {
  const users = {};
  for (let cursor = ''; cursor !== null; ) {
    const query = `limit=500${cursor && '&cursor=' + encodeURIComponent(cursor)}`;
    const response = await fetch(`${LOCKHOUSE}/api/v1/locks?${query}`, {
      headers: { Authorization: `Bearer ${LOCKHOUSE_TOKEN}` },
      signal: AbortSignal.timeout(5_000),
    });
    if (!response.ok) throw new Error(`Lockhouse answers ${response.status}`);
    const page = await response.json();
    for (const { workspace_id, locked_by_user_id } of page.locks) users[workspace_id] = locked_by_user_id;
    cursor = page.next_cursor;
  }
  return users;
}

export const all = () => Object.entries(state.users).map(([workspace, user]) => `${workspace}: ${user}`).sort();
