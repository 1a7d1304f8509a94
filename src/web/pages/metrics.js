// Reads the text of /metrics, as far as numbers go: the format of Prometheus, or OpenMetrics, which differ in what
// stands around them (https://prometheus.io/docs/instrumenting/exposition_formats/).

/** Each sample by its name, as `{ labels, value }`. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split('\n')) {
    const [, name, labels, value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)/.exec(line) ?? [];
    if (name === undefined) continue;
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels: parseLabels(labels ?? ''), value: number(value) });
  }
  return samples;
}

const number = (text) => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));

function parseLabels(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)) {
    labels[name] = value.replace(/\\(.)/g, (_, letter) => (letter === 'n' ? '\n' : letter));
  }
  return labels;
}

/** All samples of this name together; undefined when there are none. */
export function sum(samples, name, fits = () => true) {
  const found = samples.get(name)?.filter(({ labels }) => fits(labels));
  return found?.reduce((total, { value }) => total + value, 0);
}

/** How much a counter grew between two readings. It begins anew when the server does. */
export function growth(before, after, name, fits) {
  const [from, to] = [sum(before, name, fits) ?? 0, sum(after, name, fits)];
  return to === undefined ? undefined : to < from ? to : to - from;
}

/** What a histogram observed between two readings: how often, the mean, and below what 99 of 100 were. */
export function observed(before, after, name) {
  const times = growth(before, after, name + '_count');
  if (!times) return { times: times ?? 0, mean: undefined, p99: undefined };
  const bounds = (after.get(name + '_bucket') ?? [])
    .map(({ labels }) => labels.le)
    .sort((one, other) => number(one) - number(other));
  const below = bounds.find(
    (le) => growth(before, after, name + '_bucket', (labels) => labels.le === le) >= times * 0.99,
  );
  return {
    times,
    mean: growth(before, after, name + '_sum') / times,
    p99: below === undefined ? undefined : number(below),
  };
}
