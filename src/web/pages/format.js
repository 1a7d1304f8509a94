// Formats numbers and instants.

import { now } from './clock.js';
import { h } from './dom.js';
import { isUtc } from './settings.js';

const two = (number) => String(number).padStart(2, '0');

/** Remaining time: `9:41`, `2:05:00`. Rounded up, so that a lease shows zero only when it has ended. */
export function left(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1000],
];

/** A duration: `4 min`, `2 h`. */
export function span(ms) {
  const [unit, size] = UNITS.find(([, size]) => ms >= size) ?? ['s', 1000];
  return `${Math.max(0, Math.floor(ms / size))} ${unit}`;
}

/** The time since an instant. */
export function ago(at) {
  const ms = now() - Date.parse(at);
  return ms < 5000 ? 'just now' : span(ms) + ' ago';
}

/** The formatter of instants, in local time or UTC as chosen. */
function writer(style) {
  const local = new Intl.DateTimeFormat(undefined, style);
  const utc = new Intl.DateTimeFormat(undefined, { ...style, timeZone: 'UTC' });
  return (at) => (isUtc() ? `${utc.format(new Date(at))} UTC` : local.format(new Date(at)));
}

/** With seconds, and without. */
export const full = writer({ dateStyle: 'medium', timeStyle: 'medium' });
const short = writer({ dateStyle: 'medium', timeStyle: 'short' });

/** An instant with its full form as tooltip. */
export const time = (at, text) => h('time', { datetime: at, title: full(at) }, text ?? ago(at));

/** The duration since an instant. */
export const lasting = (at) => time(at, 'for ' + span(now() - Date.parse(at)));

/** An instant with date and minutes. */
export const date = (at) => time(at, short(at));

/** An instant with date and seconds. */
export const moment = (at) => time(at, full(at));

const ORDER = new Intl.Collator(undefined, { numeric: true });

/** Natural order: 2 before 10. */
export const natural = (one, other) => ORDER.compare(one, other);

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(number) {
  let unit = 0;
  for (; number >= 1024 && unit < BYTES.length - 1; unit++) number /= 1024;
  return `${number >= 100 || Number.isInteger(number) ? Math.round(number) : number.toFixed(1)} ${BYTES[unit]}`;
}

export function count(number) {
  if (number >= 10_000) return Math.round(number).toLocaleString('en').replaceAll(',', '\u202f');
  return number >= 100 || Number.isInteger(number) ? String(Math.round(number)) : number.toFixed(number >= 10 ? 1 : 2);
}

/** A short duration: `340 µs`, `1.2 ms`. */
export function seconds(number) {
  if (number < 0.001) return `${Math.round(number * 1e6)} µs`;
  if (number >= 1) return `${number.toFixed(2)} s`;
  const ms = number * 1000;
  return `${ms >= 10 ? Math.round(ms) : ms.toFixed(1)} ms`;
}

/** `1 lock`, `2 locks` */
export const many = (number, word) => `${number} ${word}${number === 1 ? '' : 's'}`;

/** The addresses of the pages. */
export const workspaceHref = (id) => '#/workspaces/' + encodeURIComponent(id);
export const userHref = (id) => '#/users/' + encodeURIComponent(id);

/** A user: the name, and the id, which users cannot choose themselves. */
export function person(id, name) {
  const shown =
    name && name !== id
      ? [h('bdi', { class: 'name' }, name), ' ', h('code', {}, h('bdi', {}, id))]
      : h('code', { class: 'name' }, h('bdi', {}, id));
  return h('a', { class: 'person', href: userHref(id) }, shown);
}

/** Who holds a lock or asks for one: the user, or the agent and its user, with the kind of the lock if it is no person's. */
export function who(id, name, kind, agent) {
  if (agent) {
    const user = h('a', { class: 'person', href: userHref(id) }, h('bdi', {}, agent.for_name ?? id));
    return h('span', {}, h('bdi', { class: 'name' }, agent.name ?? 'An agent'), ' ', h('span', { class: 'tag' }, 'agent of ', user));
  }
  const plain = person(id, name);
  return kind && kind !== 'edit' ? h('span', {}, plain, ' ', h('span', { class: 'tag' }, kind)) : plain;
}
