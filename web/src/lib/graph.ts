/**
 * A network drawn from left to right: layers in columns by their longest way from the input, branches in
 * lanes below one another. Small and made for what networks are: long chains with few branches.
 */

import type { Layer } from "./api";

export interface Place {
  name: string;
  rank: number; // column
  lane: number; // row
}

export interface Edge {
  from: string;
  to: string;
  /** lanes passed through between the two, one a column; empty for neighbours */
  via: number[];
}

export interface Drawing {
  places: Place[];
  edges: Edge[];
  ranks: number;
  lanes: number;
  /** lanes that hold at least one layer; the others only let an edge pass and may be narrow */
  full: boolean[];
}

type Node = Pick<Layer, "name" | "inputs">;

/** Keep some layers; an edge then leads past those left out. */
export function only(layers: Node[], keep: (name: string) => boolean): Node[] {
  const reach = new Map<string, string[]>(); // layer -> the kept layers that its answer stands for
  const kept: Node[] = [];
  for (const { name, inputs } of layers) {
    const from = [...new Set(inputs.flatMap((input) => reach.get(input) ?? []))];
    if (keep(name)) {
      kept.push({ name, inputs: from });
      reach.set(name, [name]);
    } else {
      reach.set(name, from);
    }
  }
  return kept;
}

/** Lay layers out; they come in the order in which they run, so an input stands before its reader. */
export function draw(layers: Node[]): Drawing {
  const rank = new Map<string, number>();
  const read = new Map<string, string[]>();
  for (const { name, inputs } of layers) {
    const known = inputs.filter((input) => rank.has(input));
    read.set(name, known);
    rank.set(name, known.length ? 1 + Math.max(...known.map((input) => rank.get(input)!)) : 0);
  }
  const readers = new Map<string, string[]>();
  for (const [to, from] of read) for (const input of from) readers.set(input, [...(readers.get(input) ?? []), to]);
  const ranks = 1 + Math.max(-1, ...rank.values());
  const columns: string[][] = Array.from({ length: ranks }, () => []);
  for (const { name } of layers) columns[rank.get(name)!]!.push(name);

  const lane = new Map<string, number>();
  const edges: Edge[] = [];
  let open: Edge[] = []; // edges on their way to a later column, each holding a lane
  for (let column = 0; column < ranks; column++) {
    const taken = new Set<number>();
    const free = (wish: number): number => {
      for (let away = 0; ; away++) {
        if (!taken.has(wish + away)) return wish + away;
        if (wish - away >= 0 && !taken.has(wish - away)) return wish - away;
      }
    };
    const take = (wish: number) => {
      const found = free(Math.max(0, wish));
      taken.add(found);
      return found;
    };
    // Layers first, near their inputs: the main way stays straight, and passing edges give way.
    for (const name of columns[column]!) {
      const wishes = read.get(name)!.map((input) => lane.get(input)!);
      lane.set(name, take(wishes.length ? Math.min(...wishes) : 0));
    }
    for (const edge of open) {
      if (rank.get(edge.to)! > column) edge.via.push(take(edge.via.at(-1) ?? lane.get(edge.from)!));
    }
    open = open.filter((edge) => rank.get(edge.to)! > column + 1);
    for (const from of columns[column]!) {
      for (const to of readers.get(from) ?? []) {
        const edge: Edge = { from, to, via: [] };
        edges.push(edge);
        if (rank.get(to)! > column + 1) open.push(edge);
      }
    }
  }
  const places = layers.map(({ name }) => ({ name, rank: rank.get(name)!, lane: lane.get(name)! }));
  const lanes = 1 + Math.max(-1, ...places.map((p) => p.lane), ...edges.flatMap((e) => e.via));
  const full = Array.from({ length: lanes }, (_, i) => places.some((p) => p.lane === i));
  return { places, edges, ranks, lanes, full };
}
