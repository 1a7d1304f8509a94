// A small chart of samples: a line, the area below it, and axes.

import { h, say, svg } from './dom.js';
import { bytes, span } from './format.js';

const [WIDTH, HEIGHT] = [240, 60];
/** Samples further apart than this are not connected (milliseconds). */
const GAP_MS = 15_000;

export class Chart {
  constructor({ title, about, format, worry = () => undefined }) {
    Object.assign(this, { title, about, format, worry });
    this.number = h('p', { class: 'value' }, '–');
    this.below = h('p', { class: 'sub' }, about);
    this.area = svg('path', { class: 'area' });
    this.line = svg('path', { class: 'line', 'vector-effect': 'non-scaling-stroke' });
    this.drawing = svg(
      'svg',
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: 'none',
        role: 'img',
        'aria-label': `${title}: nothing measured yet`,
      },
      svg('path', { class: 'grid', d: `M0 ${HEIGHT / 2}H${WIDTH}`, 'vector-effect': 'non-scaling-stroke' }),
      this.area,
      this.line,
    );
    [this.top, this.middle, this.begin] = [h('span'), h('span'), h('span')];
    this.node = h(
      'section',
      { class: 'panel chart' },
      h('h2', {}, title),
      this.number,
      // The accessible name describes the axes.
      h(
        'div',
        { class: 'plot' },
        h('div', { class: 'y', 'aria-hidden': 'true' }, this.top, this.middle, h('span', {}, '0')),
        this.drawing,
        h('div', { class: 'x', 'aria-hidden': 'true' }, this.begin, h('span', {}, 'now')),
      ),
      this.below,
    );
  }

  /** Shows these `[at, value]` of the last `range` milliseconds before `until`. */
  show(samples, until, range) {
    const known = samples.filter(([, value]) => value !== null);
    const values = known.map(([, value]) => value);
    const top = niceTop(Math.max(0, ...values), this.format === bytes);
    const { line, area } = paths(known, (at) => WIDTH * (1 - (until - at) / range), (value) => HEIGHT * (1 - value / top));
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
    say(this.top, this.format(top));
    say(this.middle, this.format(top / 2));
    say(this.begin, `${span(range)} ago`);
    if (known.length === 0) return;
    const [least, most, last] = [Math.min(...values), Math.max(...values), values.at(-1)].map(this.format);
    say(this.number, last);
    const worry = this.worry(values.at(-1));
    say(this.below, worry ?? this.about);
    this.below.classList.toggle('worry', worry !== undefined);
    this.drawing.setAttribute('aria-label', `${this.title}, last ${span(range)}: from ${least} to ${most}, now ${last}`);
  }
}

/** The next round number, for the end of an axis. */
function niceTop(most, isBinary) {
  if (most === 0) return isBinary ? 1024 : 1;
  if (isBinary) return 2 ** Math.ceil(Math.log2(most));
  const size = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 6, 8, 10].map((step) => step * size).find((top) => top >= most) ?? most;
}

/** The line and the area below it, with gaps where samples are missing. */
function paths(samples, x, y) {
  let [line, area] = ['', ''];
  for (let from = 0, place = 1; place <= samples.length; place++) {
    if (samples[place]?.[0] - samples[place - 1][0] <= GAP_MS) continue;
    const points = samples.slice(from, place).map(([at, value]) => `${x(at).toFixed(2)} ${y(value).toFixed(2)}`);
    line += 'M' + points.join('L');
    area += `M${x(samples[from][0]).toFixed(2)} ${HEIGHT}L${points.join('L')}L${x(samples[place - 1][0]).toFixed(2)} ${HEIGHT}Z`;
    from = place;
  }
  return { line, area };
}
