/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element, with what is in it; all of it is text. */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Writes a text where it is not there yet. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A fence as people can compare it: its end. It has 16 digits, and the first of them are the same for a quarter of an hour. */
export const short = (fence) => '…\u2060' + String(fence).slice(-9).replace(/\B(?=(\d{3})+$)/g, '\u202f');

/** A fence to be read, with all of it in the tooltip. */
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
