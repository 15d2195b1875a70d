/** What of the picture a place of a map sees. */

import type { Sight, Window } from "./api";

/** All in parts of the picture's sides, 0..1. */
export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** The part of the picture that the network is given: all of it, or its middle square. */
export function sightBox(sight: Sight, picture: { width: number; height: number }): Box {
  const [left, top, right, bottom] = sight.box;
  const { width, height } = picture;
  return { x: left / width, y: top / height, w: (right - left) / width, h: (bottom - top) / height };
}

/** One axis: from where to where a place sees, in parts of the side, cut to it. */
function span(i: number, side: number, size: number, stride: number, start: number): [number, number] {
  const from = start + stride * i;
  const low = Math.min(Math.max(from, 0), side - 1);
  return [low / side, Math.max(Math.min(from + size, side), low + 1) / side];
}

/** The receptive field of a place, on the picture; all that the network is given where it has no window. */
export function fieldBox(
  at: { y: number; x: number },
  window: Window | null,
  sight: Sight,
  picture: { width: number; height: number },
): Box {
  const whole = sightBox(sight, picture);
  if (!window) return whole;
  const [y0, y1] = span(at.y, sight.height, window.size[0], window.stride[0], window.start[0]);
  const [x0, x1] = span(at.x, sight.width, window.size[1], window.stride[1], window.start[1]);
  const { x, y, w, h } = whole;
  return { x: x + x0 * w, y: y + y0 * h, w: (x1 - x0) * w, h: (y1 - y0) * h };
}
