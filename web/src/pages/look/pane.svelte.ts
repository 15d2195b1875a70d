/** One network looking at one picture: what it is asked, what came back, what is selected. */

import { SvelteMap } from "svelte/reactivity";

import { address, request, type Look, type Network, type Picture, type Prediction, type SeenLayer } from "../../lib/api";
import { only } from "../../lib/graph";
import { liveFrame, looked, rgb, sprite, type Sprite } from "../../lib/sprite";
import { studio } from "../../lib/studio.svelte";
import type { Shown } from "./view.svelte";

/** A layer's maps with what is needed to draw them; they come and are replaced together. */
export interface Seen {
  key: string;
  layer: SeenLayer;
  sprite: Sprite;
}

export const CELL = 64; // the most pixels a map's side has in a sprite
const USUAL = 224;
const LIVE = 64;
const TOGETHER = 50; // milliseconds within which what comes is shown at once

let counter = 0;

export class Pane {
  readonly id = ++counter;
  net = $state("");
  size = $state(0); // 0: the network's own
  picture = $state.raw<Picture | null>(null);
  frozen = $state(false);
  live = $state(false);

  network = $state.raw<Network | null>(null);
  look = $state.raw<Look | null>(null);
  seen = new SvelteMap<string, Seen>();
  predictions = $state.raw<Prediction[]>([]);
  error = $state("");
  busy = $state(false);
  rate = $state(0); // frames a second of the camera

  layer = $state("");
  channel = $state<number | null>(null);
  shown = $state<Shown>("all");
  hover = $state.raw<{ channel: number; y: number; x: number } | null>(null);

  #abort: AbortController | null = null;
  #wanted = new Set<string>(); // layers in sight, whose sprites are worth a request
  #asked = new Set<string>(); // those asked for under the present key
  #coming = 0; // answers that are on their way
  #here: [string, Seen][] = []; // come, and not shown yet
  #soon: ReturnType<typeof setTimeout> | undefined;

  constructor(from?: Pane) {
    if (!from) return;
    this.net = from.net;
    this.size = from.size;
    this.picture = from.picture;
    this.network = from.network;
    this.look = from.look;
    this.predictions = from.predictions;
    this.layer = from.layer;
    this.channel = from.channel;
    this.shown = from.shown;
    for (const [name, seen] of from.seen) {
      this.seen.set(name, seen);
      if (from.look && seen.key === from.look.key) this.#asked.add(name);
    }
  }

  get side(): number {
    const { network } = this;
    if (network?.fits === "fixed") return network.side;
    return Math.min(this.size || network?.input_size || USUAL, network?.largest ?? Infinity);
  }

  /** The camera's pictures are small: what is seen is to move. */
  get liveSide(): number {
    return this.network?.fits === "fixed" ? this.network.side : LIVE;
  }

  /** The network's layers that are drawn, with their edges led past the others. */
  nodes = $derived.by(() => {
    const layers = this.network?.layers ?? [];
    const keep = kinds(layers, this.shown);
    return only(layers, (name) => keep.has(name));
  });
  layers = $derived(this.nodes.map((node) => node.name));

  /** What the sheet shows, in its order and rows: for the keys that move on it. */
  sheet: { channels: number[]; columns: number } = { channels: [], columns: 1 };

  /** Open a network; its layers are drawn before it has seen anything. */
  async open(net: string): Promise<void> {
    if (this.net === net && this.network) return;
    this.#abort?.abort();
    this.net = net;
    this.network = null;
    this.forget();
    this.busy = true;
    try {
      const network = await studio.network(net);
      if (this.net !== net) return;
      this.network = network;
      this.shown = usual(network);
      if (!this.layers.includes(this.layer)) {
        this.layer = this.layers[Math.floor(this.layers.length / 3)] ?? "";
        this.channel = null;
      }
    } catch (error) {
      if (this.net === net) this.error = (error as Error).message;
    } finally {
      if (this.net === net) this.busy = false;
    }
  }

  forget(): void {
    this.look = null;
    this.seen.clear();
    this.predictions = [];
    this.hover = null;
    this.error = "";
    this.#asked.clear();
  }

  /** One forward pass. Small sprites of the layers in sight come with it; large ones follow, one by one. */
  async see(picture: Picture): Promise<void> {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    this.picture = picture;
    this.error = "";
    this.busy = true;
    try {
      const near = this.#near();
      const asked = { net: this.net, picture: picture.id, size: this.side, sprites: near, cell: CELL };
      const { look, sprites } = await looked(asked, abort.signal);
      if (abort.signal.aborted) return;
      this.look = look;
      this.predictions = look.predictions;
      this.#asked.clear();
      this.hover = null;
      for (const layer of look.layers) {
        const found = sprites.get(layer.name);
        if (!found) continue;
        this.#asked.add(layer.name);
        if (!this.live) this.seen.set(layer.name, { key: look.key, layer, sprite: found });
      }
      if (!this.layers.includes(this.layer)) this.select(this.layers.at(-1) ?? "");
      await Promise.all(this.#near().map((name) => this.#fetch(name)));
    } catch (error) {
      if (!abort.signal.aborted) this.#fail(error);
    } finally {
      if (this.#abort === abort) this.busy = false;
    }
  }

  /** The layers worth a sprite: the selected one, then those in sight. */
  #near(): string[] {
    const shown = new Set(this.layers);
    return [...new Set([this.layer, ...this.#wanted])].filter((name) => shown.has(name));
  }

  /** A layer has come into sight. */
  want(name: string): void {
    this.#wanted.add(name);
    this.#fetch(name).catch((error) => this.#fail(error));
  }

  unwant(name: string): void {
    this.#wanted.delete(name);
  }

  select(layer: string, channel: number | null = null): void {
    if (!layer) return;
    this.hover = null;
    this.layer = layer;
    this.channel = channel;
    this.#fetch(layer).catch((error) => this.#fail(error));
  }

  async #fetch(name: string): Promise<void> {
    const look = this.look;
    const signal = this.#abort?.signal;
    const layer = look?.layers.find((layer) => layer.name === name);
    if (!look || !layer || this.live || this.#asked.has(name)) return;
    this.#asked.add(name);
    this.#coming++;
    try {
      const found = await sprite(look.key, name, CELL, signal);
      this.#here.push([name, { key: look.key, layer, sprite: found }]);
    } catch (error) {
      if (this.look === look) this.#asked.delete(name);
      if (!signal?.aborted) throw error;
    } finally {
      this.#coming--;
      if (!this.#coming) this.#show();
      else this.#soon ??= setTimeout(() => this.#show(), TOGETHER);
    }
  }

  /** Show what has come, together: each time that anything changes the whole page is painted anew. */
  #show(): void {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    for (const [name, seen] of this.#here.splice(0)) {
      if (seen.key === this.look?.key && !this.live) this.seen.set(name, seen);
    }
  }

  #fail(error: unknown): void {
    this.error = (error as Error).message;
  }

  /** Show a frame of the camera: one layer, at once. */
  async frame(pixels: ImageData): Promise<void> {
    const query = new URLSearchParams({ net: this.net, layer: this.layer, size: String(pixels.width) });
    const url = `${address("live")}?${query}`;
    const response = await request(url, {
      method: "POST",
      body: rgb(pixels.data),
      headers: { "Content-Type": "application/octet-stream" },
    });
    const found = liveFrame(await response.arrayBuffer());
    if (!this.live || found.layer !== this.layer) return;
    const { lo, hi, sprite: maps } = found;
    const [low, high] = [Array.from(lo), Array.from(hi)];
    const layer: SeenLayer = {
      name: found.layer,
      kind: "",
      channels: maps.channels,
      h: maps.h,
      w: maps.w,
      lo: low,
      hi: high,
      mean: high, // the camera's frames carry no mean; strength is the most there is
      dead: low.filter((value, i) => value === 0 && high[i] === 0).length,
      etag: "",
    };
    this.seen.set(found.layer, { key: "live", layer, sprite: maps });
    this.predictions = found.predictions;
  }
}

/** Which layers a choice keeps. Where it would keep none, all are kept. */
export function kinds(layers: Network["layers"], shown: Shown): Set<string> {
  const visible = layers.filter((layer) => layer.maps);
  const some = visible.filter((layer) => {
    if (shown === "rectified") return /relu|silu|gelu|hardswish|elu|tanh|sigmoid/i.test(layer.kind);
    if (shown === "weighted") return layer.parameters > 0 && !/norm/i.test(layer.kind);
    return true;
  });
  return new Set((some.length ? some : visible).map((layer) => layer.name));
}

/** A short network is shown whole; of a long one what its nonlinearities let through. */
function usual(network: Network): Shown {
  if (network.layers.length <= 16) return "all";
  const rectified = kinds(network.layers, "rectified");
  return rectified.size < network.layers.length ? "rectified" : "all";
}
