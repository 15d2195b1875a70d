/** How layers are shown: one choice for all panes, so that what stands side by side compares. */

import type { Colour, Scale, Tone } from "../../lib/tone";

export const SHOWN = ["rectified", "weighted", "all"] as const;
export type Shown = (typeof SHOWN)[number];

class View {
  scale = $state<Scale>("channel");
  colour = $state<Colour>("ember");
  boost = $state(1);
  gamma = $state(1);
  sort = $state(false);
  hideDead = $state(false);
  tile = $state(0); // a tile's width in CSS pixels; 0: as fits
  overlay = $state(false); // the chosen map over the picture

  get tone(): Tone {
    return { scale: this.scale, colour: this.colour, boost: this.boost, gamma: this.gamma };
  }

  reset(): void {
    this.scale = "channel";
    this.colour = "ember";
    this.boost = this.gamma = 1;
    this.sort = this.hideDead = this.overlay = false;
    this.tile = 0;
  }
}

export const view = new View();

/** Steps of the keys: halves and doubles in eight steps, kept within the sliders' ends. */
export const step = (value: number, up: boolean, least: number, most: number): number => {
  const next = value * (up ? 2 ** 0.25 : 2 ** -0.25);
  return Math.min(most, Math.max(least, Math.abs(next - 1) < 0.02 ? 1 : next));
};
