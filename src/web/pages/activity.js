// The events of all workspaces that the user may see.

import { field, h } from './dom.js';
import { workspaceHref } from './format.js';
import { KINDS, History } from './history.js';
import { isUtc } from './settings.js';

/** Events within this time are read together (milliseconds). */
const TOGETHER_MS = 1000;

/** The label of each event type. */
const wordsFor = (type) => type.replace('.', ': ').replaceAll('_', ' ');

export function showActivity(app, root, { signal }) {
  const given = app.query;
  const text = (name) =>
    h('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', maxlength: 255, placeholder: 'User id', value: given.get(name) });
  const instant = (name) => h('input', { type: 'datetime-local', value: toControl(given.get(name)) });
  const types = Object.keys(KINDS).map((type) =>
    h('option', { value: type, selected: type === given.get('type') }, wordsFor(type)),
  );
  const controls = {
    user_id: text('user_id'),
    by_user_id: text('by_user_id'),
    type: h('select', {}, h('option', { value: '' }, 'everything'), types),
    from: instant('from'),
    until: instant('until'),
  };
  const filters = () => ({
    user_id: controls.user_id.value || undefined,
    by_user_id: controls.by_user_id.value || undefined,
    type: controls.type.value || undefined,
    from: toInstant(controls.from.value),
    until: toInstant(controls.until.value),
  });
  const history = new History(app, {
    path: '/api/v1/history',
    filters,
    where: ({ workspace_id }) => [h('a', { class: 'workspace', href: workspaceHref(workspace_id) }, h('bdi', {}, workspace_id)), ' '],
    nothing: 'Nothing that fits has happened, as far as is kept.',
    signal,
  });
  for (const control of Object.values(controls)) {
    control.addEventListener('change', () => {
      app.setQuery(filters());
      history.restart();
    });
  }

  let soon;
  app.live.hear(() => {
    soon ??= setTimeout(() => {
      soon = undefined;
      if (!signal.aborted) history.refresh();
    }, TOGETHER_MS);
  }, signal);

  const download = h('button', { type: 'button', class: 'small', onclick: () => history.save('activity.csv') }, 'Download CSV');
  const zone = isUtc() ? ' (UTC)' : '';
  root.append(
    h('div', { class: 'title' }, h('h1', { tabindex: '-1' }, 'Activity'), h('div', { class: 'actions' }, download)),
    h(
      'div',
      { class: 'toolbar', role: 'search' },
      field('Whose lock', controls.user_id),
      field('Done by', controls.by_user_id),
      field('What', controls.type),
      field('From' + zone, controls.from),
      field('Until' + zone, controls.until),
    ),
    history.node,
  );
  history.refresh();
}

/** The value of a control, in the chosen time zone, as an RFC 3339 instant for the API and the address. */
const toInstant = (value) => (value ? new Date(isUtc() ? value + 'Z' : value).toISOString() : undefined);

/** The inverse; empty for an invalid instant. */
function toControl(instant) {
  const at = new Date(instant ?? NaN);
  if (Number.isNaN(at.getTime())) return null;
  const shift = isUtc() ? 0 : at.getTimezoneOffset() * 60_000;
  return new Date(at.getTime() - shift).toISOString().slice(0, 16);
}
