// Shell commands that do something as the user who is signed in.

import { h } from './dom.js';

/** The command as an element; null if no command would work: behind a proxy that signs users in, only the
 * browser is signed in. A service acts for `user`. */
export function curl(session, method, path, { user, body } = {}) {
  const says = credentials(session, user);
  if (says === null) return null;
  const words = ['curl', '-X', method, location.origin + path, ...says, ...(body ? [`--json '${JSON.stringify(body)}'`] : [])];
  return h('pre', {}, words.join(' '));
}

function credentials({ mode, scope, actsForOthers }, user) {
  const named = user ? [`-H 'X-User-Id: ${user}'`] : [];
  if (mode === 'none') return named;
  if (mode !== 'token' || scope === undefined) return null;
  return [`-H "Authorization: Bearer $TOKEN"`, ...(actsForOthers ? named : [])];
}
