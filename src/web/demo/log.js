import { byId, element, fenceOf, write } from './page.js';

/** The most entries. */
const MOST = 60;

/** The text of an event. `who` maps a user id to a name. */
const STORIES = {
  'lock.acquired': ({ user_id }, who) => `${who(user_id)} has the lock`,
  'lock.released': ({ user_id }, who) => `${who(user_id)} has released it`,
  'lock.expired': ({ user_id }, who) => `${who(user_id)}’s lease has run out`,
  'lock.taken_over': ({ user_id, by_user_id }, who) => `${who(by_user_id)} has taken over from ${who(user_id)}`,
  'lock.handed_over': ({ user_id, detail }, who) => `It has passed from ${who(user_id)} to ${who(detail.to_user_id)}`,
  'lock.knocked': ({ user_id, by_user_id, detail }, who) =>
    detail.outcome === 'postponed'
      ? `${who(user_id)} is at work: ${who(by_user_id)} gets it later`
      : `${who(by_user_id)} asks for it${detail.message ? `: “${detail.message}”` : ''}`,
  'lock.knock_declined': ({ user_id }, who) => `${who(user_id)} keeps it`,
  'lock.revoked': ({ user_id, by_user_id }, who) => `${who(by_user_id)} has ended ${who(user_id)}’s lease`,
};

/** Follows the events, logs them, and reports the holder. */
export function follow(client, workspaceId, who, onLock) {
  const onEvent = ({ type, data }) => {
    if (!data) return;
    onLock(data.lock);
    const fence = data.detail.new_fence ?? data.fence;
    add(type, STORIES[type]?.(data, who) ?? type, fence);
  };
  const onConnection = (connected) => {
    write(byId('connection'), connected ? 'Events of the workspace' : 'Not connected. Events of the workspace');
    if (connected) byId('log').dataset.follows = workspaceId;
  };
  write(byId('workspace'), workspaceId);
  return client.follow({ workspaceIds: [workspaceId], signal: new AbortController().signal, onEvent, onConnection });
}

/** Adds an entry. `kind`: the event's type, or an entry of the document. */
export function add(kind, story, fence) {
  const list = byId('log');
  const time = element('time', '', new Date().toLocaleTimeString());
  const said = element('code', '', kind.split(' ')[0]);
  list.prepend(element('li', kind.startsWith('lock.') ? 'server' : kind, time, element('span', '', story), said));
  if (fence) said.after(fenceOf(fence));
  while (list.childElementCount > MOST) list.lastElementChild.remove();
}
