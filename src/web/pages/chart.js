// A small chart of what was measured last: a line and the area below it.

import { h, say, svg } from './dom.js';

const [WIDTH, HEIGHT] = [240, 56];

export class Chart {
  #values = [];

  /** `format` shows a number, `keep` is how many are shown. */
  constructor({ title, about, format, keep }) {
    Object.assign(this, { title, format, keep });
    this.number = h('p', { class: 'value' }, '–');
    this.below = h('p', { class: 'sub' }, about);
    this.area = svg('path', { class: 'area' });
    this.line = svg('path', { class: 'line', 'vector-effect': 'non-scaling-stroke' });
    this.most = h('span', { class: 'most' });
    this.drawing = svg(
      'svg',
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' },
      this.area,
      this.line,
    );
    this.node = h(
      'section',
      { class: 'panel chart' },
      h('h2', {}, title),
      this.number,
      h('div', { class: 'plot' }, this.drawing, this.most),
      this.below,
    );
  }

  /** One more; nothing where there was nothing to measure. */
  add(value) {
    this.#values.push(value);
    if (this.#values.length > this.keep) this.#values.shift();
    const known = this.#values.filter((one) => one !== undefined && Number.isFinite(one));
    if (value !== undefined) say(this.number, this.format(value));
    const top = Math.max(...known, 0) || 1;
    say(this.most, known.length ? this.format(Math.max(...known)) : '');
    this.drawing.setAttribute(
      'aria-label',
      known.length
        ? `${this.title}: from ${this.format(Math.min(...known))} to ${this.format(Math.max(...known))}, now ${this.format(known.at(-1))}`
        : `${this.title}: nothing measured yet`,
    );
    const { line, area } = paths(this.#values, this.keep, top);
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
  }
}

/** The newest is at the right edge. Where nothing was measured there is a gap. */
function paths(values, keep, top) {
  let [line, area, begun] = ['', '', null];
  values.forEach((value, place) => {
    const x = (WIDTH * (keep - values.length + place)) / (keep - 1);
    const isKnown = value !== undefined && Number.isFinite(value);
    if (isKnown) {
      const point = `${x.toFixed(1)} ${(HEIGHT - 2 - (HEIGHT - 6) * (value / top)).toFixed(1)}`;
      line += `${begun === null ? 'M' : 'L'}${point}`;
      area += begun === null ? `M${x.toFixed(1)} ${HEIGHT}L${point}` : `L${point}`;
      begun ??= x;
      if (place === values.length - 1 || !Number.isFinite(values[place + 1] ?? NaN)) {
        area += `L${x.toFixed(1)} ${HEIGHT}Z`;
        begun = null;
      }
    }
  });
  return { line, area };
}
