/** How a layer's channels are laid out on their sheet, and which of them. */

import type { SeenLayer } from "./api";

export interface Grid {
  columns: number;
  rows: number;
  tileW: number; // device pixels, the gap not counted
  tileH: number;
  gap: number;
}

const LEAST = 26; // CSS pixels below which a map says little: rather scroll
const MOST = 220;

/** Channels in the order in which they are shown. */
export function order(layer: Pick<SeenLayer, "lo" | "hi" | "mean">, sort: boolean, hideDead: boolean): number[] {
  const all = Array.from(layer.lo, (_, i) => i);
  const kept = hideDead ? all.filter((i) => !dead(layer, i)) : all;
  // equal ones by number: Array.sort is stable
  return sort ? kept.sort((a, b) => (layer.mean[b] ?? 0) - (layer.mean[a] ?? 0)) : kept;
}

/** A channel that is 0 everywhere says nothing of this picture. */
export function dead(layer: Pick<SeenLayer, "lo" | "hi">, channel: number): boolean {
  return layer.lo[channel] === 0 && layer.hi[channel] === 0;
}

/** The largest tiles with which n maps fill the area; where they got too small, it scrolls instead. */
export function grid(
  n: number,
  map: { h: number; w: number },
  area: { width: number; height: number; dpr: number },
  wish = 0, // a tile's width in CSS pixels; 0: as fits
): Grid {
  const { dpr } = area;
  const width = Math.max(1, Math.floor(area.width * dpr));
  const height = Math.max(1, Math.floor(area.height * dpr));
  const ratio = map.h / map.w;
  // units of one value need no more than a dot each
  const [least, most] = map.h * map.w === 1 ? [10, 36] : [LEAST, MOST];
  const gap = Math.max(1, Math.round((map.h * map.w === 1 ? 1 : 2) * dpr));
  let tile = wish * dpr;
  if (!wish) {
    for (let columns = 1; columns <= n; columns++) {
      const wide = Math.floor((width - gap * (columns - 1)) / columns);
      if (wide < least * dpr) break;
      const rows = Math.ceil(n / columns);
      const high = Math.floor(((height + gap) / rows - gap) / ratio);
      tile = Math.max(tile, Math.min(wide, high));
    }
    tile = Math.max(tile, least * dpr); // where none fits, it scrolls
    tile = Math.min(tile, most * dpr);
  }
  const tileW = Math.max(1, Math.min(Math.floor(tile), width));
  const columns = Math.max(1, Math.min(Math.floor((width + gap) / (tileW + gap)), Math.max(n, 1)));
  return { columns, rows: Math.ceil(n / columns), tileW, tileH: Math.max(1, Math.round(tileW * ratio)), gap };
}

/** Which tile lies under a point (device pixels from the sheet's start), and where within it, 0..1. */
export function hit(g: Grid, n: number, x: number, y: number): { index: number; u: number; v: number } | null {
  const column = Math.floor(x / (g.tileW + g.gap));
  const row = Math.floor(y / (g.tileH + g.gap));
  const u = (x - column * (g.tileW + g.gap)) / g.tileW;
  const v = (y - row * (g.tileH + g.gap)) / g.tileH;
  const index = row * g.columns + column;
  if (x < 0 || y < 0 || column >= g.columns || index >= n || u >= 1 || v >= 1) return null;
  return { index, u, v };
}
