/** What a curve's drawing needs: scales, ticks, and few enough points. */

export type Point = readonly [number, number];

export interface Line {
  name: string;
  points: readonly Point[];
  /** A place in the palette; else the line's own place. */
  colour?: number;
  faint?: boolean;
}

/** Keep a curve's shape with few points: of each run of neighbours its least and its greatest. */
export function thin(points: readonly Point[], most = 600): Point[] {
  if (points.length <= most) return [...points];
  const buckets = Math.max(1, Math.floor(most / 2));
  const kept: Point[] = [];
  for (let bucket = 0; bucket < buckets; bucket++) {
    const from = Math.floor((bucket * points.length) / buckets);
    const to = Math.floor(((bucket + 1) * points.length) / buckets);
    let low = from;
    let high = from;
    for (let i = from; i < to; i++) {
      if (points[i]![1] < points[low]![1]) low = i;
      if (points[i]![1] > points[high]![1]) high = i;
    }
    for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) kept.push(points[i]!);
  }
  const last = points.at(-1)!;
  if (kept.at(-1) !== last) kept.push(last);
  return kept;
}

/** A running mean with as much memory as `share` of the curve: a batch's loss jumps. */
export function smooth(points: readonly Point[], share = 0.02): Point[] {
  const keep = 1 - 1 / Math.max(1, points.length * share);
  let mean = 0;
  let weight = 0;
  return points.map(([x, y]) => {
    mean = keep * mean + (1 - keep) * y;
    weight = keep * weight + (1 - keep);
    return [x, mean / weight] as const;
  });
}

export interface Scale {
  from: number;
  to: number;
  log: boolean;
  /** A value's place, 0..1. */
  at: (value: number) => number;
  ticks: number[];
}

/** A scale over values; logarithmic where asked and possible (what is not above 0 lies at its lower end). */
export function scale(values: Iterable<number>, { log = false, most = 5, zero = false } = {}): Scale {
  let from = Infinity;
  let to = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    if (value < from) from = value;
    if (value > to) to = value;
  }
  if (from > to) [from, to] = log ? [1, 10] : [0, 1];
  if (zero && !log) from = Math.min(0, from);
  if (log) {
    if (to / from < 1.2) [from, to] = [from / 1.1, to * 1.1];
    const [a, b] = [Math.log10(from), Math.log10(to)];
    return {
      from, to, log,
      at: (value) => (value <= 0 ? 0 : clamp((Math.log10(value) - a) / (b - a))),
      ticks: logTicks(from, to, most),
    };
  }
  if (to === from) [from, to] = [from - (Math.abs(from) * 0.1 || 0.5), to + (Math.abs(to) * 0.1 || 0.5)];
  return { from, to, log, at: (value) => clamp((value - from) / (to - from)), ticks: ticks(from, to, most) };
}

const clamp = (share: number): number => Math.min(1, Math.max(0, share));

/** Round numbers between two others: about `most`, never more than one beyond it. */
export function ticks(from: number, to: number, most = 5): number[] {
  const rough = (to - from) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999) ?? 10 * power;
  const found: number[] = [];
  for (let n = Math.ceil(from / step - 1e-9); n * step <= to + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

function logTicks(from: number, to: number, most: number): number[] {
  const decades: number[] = [];
  for (let n = Math.ceil(Math.log10(from) - 1e-9); 10 ** n <= to * (1 + 1e-9); n++) decades.push(Number(`1e${n}`));
  if (decades.length >= 2) {
    const every = Math.ceil(decades.length / most);
    return decades.filter((_, n) => n % every === 0);
  }
  const found: number[] = [];
  for (let n = Math.floor(Math.log10(from)); 10 ** n <= to; n++) {
    for (const m of [1, 2, 5]) {
      const tick = Number((m * 10 ** n).toPrecision(3));
      if (tick >= from && tick <= to) found.push(tick);
    }
  }
  return found.length >= 2 ? found : ticks(from, to, most);
}

/** A number as short as it can be told. */
export function tick(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(size >= 1e6 ? 1 : 0).replace("e+", "e").replace(".0e", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

/** An SVG path through points; they come as shares of the box, y upwards. */
export function path(points: readonly Point[], width: number, height: number): string {
  return points
    .map(([x, y], n) => `${n ? "L" : "M"}${(x * width).toFixed(1)} ${((1 - y) * height).toFixed(1)}`)
    .join("");
}

/** The place of the point nearest to x in points ordered by x; -1 where there is none. */
export function nearest(points: readonly Point[], x: number): number {
  let low = 0;
  let high = points.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle]![0] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - points[low - 1]![0] < points[low]![0] - x ? low - 1 : low;
}
