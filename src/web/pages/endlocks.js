// Ends leases after a confirmation.

import { ask } from './dialog.js';
import { many } from './format.js';

/** The most names in the question. */
const NAMED = 5;

export function endLocks(app, locks) {
  const [{ workspace_id, locked_by_user_id, locked_by_name }] = locks;
  const isOne = locks.length === 1;
  const names = locks.slice(0, NAMED).map((lock) => `${lock.workspace_id} (${lock.locked_by_name ?? lock.locked_by_user_id})`);
  if (locks.length > NAMED) names.push(`${locks.length - NAMED} more`);
  ask(app, {
    title: isOne ? `End the lock of ${workspace_id}?` : `End ${locks.length} locks?`,
    text: isOne
      ? `${locked_by_name ?? locked_by_user_id} has it, and learns of it at once, or with the next heartbeat. What is not saved yet may be refused.`
      : [names.join(', ') + '.', 'Their holders learn of it at once, or with the next heartbeat. What is not saved yet may be refused.'],
    action: isOne ? 'End the lock' : `End ${locks.length} locks`,
    reason: 'Reason',
    run: async (reason) => {
      const { ended, refused } = await endAll(app, locks, reason);
      if (refused.length > 0) {
        const [{ lock, error }] = refused;
        throw new Error(isOne ? error.message : `${ended} of ${locks.length} are ended. ${lock.workspace_id}: ${error.message}`);
      }
      const over = locks.length - ended;
      if (isOne) app.tell(ended ? `The lock of ${workspace_id} is ended.` : `There was no lock on ${workspace_id} any more.`);
      else app.tell(`${many(ended, 'lock')} ended.` + (over ? ` ${over} had ended before.` : ''));
    },
  });
}

/** One request at a time, so that many locks do not overload the server. */
async function endAll(app, locks, reason) {
  let ended = 0;
  const refused = [];
  for (const lock of locks) {
    const query = { force: true, fence: lock.fence, reason };
    try {
      const { released } = await app.client.request('DELETE', app.client.lockPath(lock.workspace_id), { query });
      if (released) ended++;
    } catch (error) {
      if (error.status === 401) throw error;
      // The selected lease has ended, and another user holds the lock.
      if (locks.length > 1 && error.code === 'not_holder') continue;
      refused.push({ lock, error });
    }
  }
  return { ended, refused };
}
