// Commands for a shell that do something as whoever is signed in here.

import { h } from './dom.js';

/** The command as an element; nothing where there is none that would work: behind a proxy that signs people in, only a
 * browser is signed in. Whoever acts for others does it for `user`. */
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
