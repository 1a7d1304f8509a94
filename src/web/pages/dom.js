// Makes elements. No text is parsed as markup: strings become text nodes, and the Content-Security-Policy
// forbids the rest.

const SVG = 'http://www.w3.org/2000/svg';

/** A function is a listener (`onclick`), `true` an attribute without a value; null, undefined and false are left out. */
function give(node, given, children) {
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const h = (tag, given, ...children) => give(document.createElement(tag), given, children);

export const svg = (tag, given, ...children) => give(document.createElementNS(SVG, tag), given, children);

let lastId = 0;

/** A unique id. */
export const newId = (prefix) => `${prefix}-${++lastId}`;

/** A label and its control. */
export function field(label, control, hint) {
  control.id ||= newId('field');
  const about = hint && h('span', { class: 'hint', id: control.id + '-hint' }, hint);
  if (about) control.setAttribute('aria-describedby', about.id);
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control, about);
}

/** Columns are `[name, class]`. Cells carry the names of their columns, which a narrow screen shows beside them. */
export function table(caption, columns) {
  const body = h('tbody', { role: 'rowgroup' });
  const head = columns.map(([name, kind]) =>
    h('th', { role: 'columnheader', scope: 'col', class: kind }, name || h('span', { class: 'unseen' }, 'Actions')),
  );
  const whole = h(
    'table',
    { role: 'table' },
    h('caption', { class: 'unseen' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, head)),
    body,
  );
  const row = (...cells) =>
    h(
      'tr',
      { role: 'row' },
      cells.map((cell, place) =>
        h('td', { role: 'cell', class: columns[place][1], 'data-label': columns[place][0] }, cell),
      ),
    );
  return { whole, body, row };
}

/** Replaces the children of `parent` and moves only what must be moved, so that the focus stays. If the focused
 * element is removed, the heading gets the focus. */
export function arrange(parent, children) {
  const hadFocus = parent.contains(document.activeElement);
  const kept = new Set(children);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, place) => {
    const there = parent.children[place];
    if (there !== child) parent.insertBefore(child, there ?? null);
  });
  if (hadFocus && !parent.contains(document.activeElement)) document.querySelector('main h1')?.focus();
}

/** Sets a text if it has changed. Screen readers would announce an unchanged text again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
