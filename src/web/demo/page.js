/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element with children; strings become text. */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Sets a text if it has changed. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The end of a fence, short enough to compare. It has 16 digits, of which the first change only every quarter of an hour. */
export const short = (fence) => '…\u2060' + String(fence).slice(-9).replace(/\B(?=(\d{3})+$)/g, '\u202f');

/** The end of a fence, with the whole fence as tooltip. */
export function fenceOf(fence) {
  const made = element('span', 'fence', short(fence));
  made.title = String(fence);
  return made;
}

export function seconds(ms) {
  const whole = Math.ceil(Math.max(0, ms) / 1000);
  return whole < 100 ? `${whole} s` : `${Math.ceil(whole / 60)} min`;
}

export const ago = (ms) => (ms < 1000 ? 'now' : `${seconds(ms - 999)} ago`);
