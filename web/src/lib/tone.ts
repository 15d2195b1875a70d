/**
 * From a sprite's bytes to colours, by look-up tables: scale, boost and gamma cost no request.
 *
 * `channel` spreads every channel over the whole ramp, `shared` one range over all of a layer's
 * channels, so that strong and weak ones compare; `centred` keeps zero at the ramp's middle.
 */

import type { Ranges, Sprite } from "./sprite";

export const SCALES = ["channel", "shared", "centred"] as const;
export type Scale = (typeof SCALES)[number];
export const COLOURS = ["ember", "grey"] as const;
export type Colour = (typeof COLOURS)[number];

export interface Tone {
  scale: Scale;
  colour: Colour;
  boost: number; // 1: as it is; above: weak answers show more
  gamma: number; // 1: as it is; below: brighter shadows
}

type Stop = [number, number, number, number]; // where (0..1), red, green, blue

// Ramps of steadily growing lightness from the page's ground, so that no step invents an edge.
const RAMPS: Record<string, Stop[]> = {
  ember: [
    [0, 11, 13, 16],
    [0.22, 49, 38, 84],
    [0.45, 139, 56, 95],
    [0.67, 221, 107, 70],
    [0.86, 247, 191, 104],
    [1, 255, 249, 230],
  ],
  grey: [
    [0, 8, 8, 8],
    [1, 250, 250, 250],
  ],
  // Both ways from a dark zero: cool below, warm above.
  centred: [
    [0, 196, 236, 255],
    [0.2, 78, 156, 222],
    [0.38, 30, 74, 124],
    [0.5, 11, 13, 16],
    [0.62, 124, 66, 22],
    [0.8, 228, 146, 62],
    [1, 255, 240, 205],
  ],
};

/** A ramp's colour at t in 0..1, as ImageData's 32 bits (little endian: alpha, blue, green, red). */
function at(ramp: Stop[], t: number): number {
  const x = Math.min(1, Math.max(0, t));
  let i = 1;
  while (i < ramp.length - 1 && ramp[i]![0] < x) i++;
  const a = ramp[i - 1]!;
  const b = ramp[i]!;
  const part = (x - a[0]) / (b[0] - a[0]);
  const mix = (k: 1 | 2 | 3) => Math.round(a[k] + part * (b[k] - a[k]));
  return ((255 << 24) | (mix(3) << 16) | (mix(2) << 8) | mix(1)) >>> 0;
}

const STEPS = 1024;
const baked = new Map<string, Uint32Array>();

function ramp(name: string): Uint32Array {
  let table = baked.get(name);
  if (!table) {
    const stops = RAMPS[name]!;
    table = Uint32Array.from({ length: STEPS }, (_, i) => at(stops, i / (STEPS - 1)));
    baked.set(name, table);
  }
  return table;
}

function bounds({ lo, hi }: Ranges): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < lo.length; i++) {
    low = Math.min(low, lo[i]!);
    high = Math.max(high, hi[i]!);
  }
  return [low, high];
}

/** value -> colour, for a channel of a layer; what every drawing uses. */
export function shader(ranges: Ranges, tone: Tone): (channel: number) => (value: number) => number {
  const { scale, boost, gamma } = tone;
  const table = ramp(scale === "centred" ? "centred" : tone.colour);
  const colour = (t: number) => table[Math.round(Math.min(1, Math.max(0, t)) * (STEPS - 1))]!;
  const bend = (t: number) => Math.pow(Math.min(1, Math.max(0, t * boost)), gamma);
  if (scale === "centred") {
    const [low, high] = bounds(ranges);
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return () => (v) => colour(0.5 + 0.5 * Math.sign(v) * bend(Math.abs(v) / most));
  }
  if (scale === "shared") {
    const [low, high] = bounds(ranges);
    const span = high - low || 1;
    return () => (v) => colour(bend((v - low) / span));
  }
  return (channel) => {
    const low = ranges.lo[channel] ?? 0;
    const span = (ranges.hi[channel] ?? 0) - low;
    // a constant channel has no range to spread: it stays dark
    return span > 0 ? (v) => colour(bend((v - low) / span)) : () => colour(0);
  };
}

/** A byte of a sprite as the value it stands for (to within a 255th of the channel's range). */
export function valueOf(ranges: Ranges, channel: number, byte: number): number {
  const lo = ranges.lo[channel] ?? 0;
  return lo + ((ranges.hi[channel] ?? 0) - lo) * (byte / 255);
}

/** Fill `out`, rows of `columns` maps side by side, with the channels' colours. */
export function paint(
  out: Uint32Array,
  columns: number,
  { data, h, w }: Sprite,
  ranges: Ranges,
  tone: Tone,
  channels: ArrayLike<number>,
): void {
  const shade = shader(ranges, tone);
  const table = new Uint32Array(256);
  const stride = columns * w;
  // every channel's bytes mean the same share of its range: one table serves all
  const alike = tone.scale === "channel";
  let filled = false;
  for (let i = 0; i < channels.length; i++) {
    const channel = channels[i]!;
    const flat = alike && !(ranges.hi[channel]! > ranges.lo[channel]!);
    if (!alike || !filled || flat) {
      const f = shade(channel);
      for (let byte = 0; byte < 256; byte++) table[byte] = f(valueOf(ranges, channel, byte));
      filled = !flat;
    }
    let from = channel * h * w;
    let to = Math.floor(i / columns) * h * stride + (i % columns) * w;
    for (let y = 0; y < h; y++, to += stride) {
      for (let x = 0; x < w; x++) out[to + x] = table[data[from++]!]!;
    }
  }
}

/** Give a canvas its size where it has another: to set it is to make its store anew. */
export function sized(canvas: HTMLCanvasElement, width: number, height: number): void {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

export interface Atlas {
  canvas: HTMLCanvasElement;
  columns: number;
}

/** All of a layer's maps, in their own pixels, in one picture from which tiles are drawn. */
export function atlas(
  sprite: Sprite,
  ranges: Ranges,
  tone: Tone,
  channels: ArrayLike<number>,
  canvas: HTMLCanvasElement = document.createElement("canvas"),
): Atlas {
  const columns = Math.max(1, Math.ceil(Math.sqrt((channels.length * sprite.h) / sprite.w)));
  const rows = Math.max(1, Math.ceil(channels.length / columns));
  sized(canvas, columns * sprite.w, rows * sprite.h);
  const context = canvas.getContext("2d");
  if (context && channels.length) {
    const image = context.createImageData(canvas.width, canvas.height);
    paint(new Uint32Array(image.data.buffer), columns, sprite, ranges, tone, channels);
    context.putImageData(image, 0, 0);
  }
  return { canvas, columns };
}

/** A map of plain values as a picture. */
export function drawPlain(
  canvas: HTMLCanvasElement,
  map: { h: number; w: number; data: Float32Array },
  ranges: Ranges,
  tone: Tone,
  channel: number,
): void {
  sized(canvas, map.w, map.h);
  const context = canvas.getContext("2d");
  if (!context) return;
  const image = context.createImageData(map.w, map.h);
  const out = new Uint32Array(image.data.buffer);
  const f = shader(ranges, tone)(channel);
  for (let i = 0; i < out.length; i++) out[i] = f(map.data[i]!);
  context.putImageData(image, 0, 0);
}
