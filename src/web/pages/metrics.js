// Parses the text of /metrics: the samples of the Prometheus and OpenMetrics formats, which differ in the lines
// between them (https://prometheus.io/docs/instrumenting/exposition_formats/).

/** Samples by name, each as `{ labels, value }`. */
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

/** The sum of all samples of this name; undefined if there are none. */
export function sum(samples, name, fits = () => true) {
  const found = samples.get(name)?.filter(({ labels }) => fits(labels));
  return found?.reduce((total, { value }) => total + value, 0);
}

/** The growth of a counter between two readings. A counter restarts at 0 with the server. */
export function growth(before, after, name, fits) {
  const [from, to] = [sum(before, name, fits) ?? 0, sum(after, name, fits)];
  return to === undefined ? undefined : to < from ? to : to - from;
}

/** The observations of a histogram between two readings: count, mean and 99th percentile. */
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
