/** The server's answers, typed, and the few ways to ask for them. Every address is relative to /api. */

import { words } from "./words";

export type Id = string;

export interface NetworkBrief {
  id: Id;
  name: string;
  ready: boolean;
  classes: number;
  input_size: number | null;
  source: string;
}

export interface Picture {
  id: Id;
  name: string;
  width: number;
  height: number;
}

export interface StudioState {
  version: string;
  networks: NetworkBrief[];
  pictures: Picture[];
  samples: Picture[];
  device: string;
  threads: number;
}

export interface Layer {
  name: string;
  kind: string;
  shape: number[]; // channels, height, width at the network's input size
  parameters: number;
  field: number | null; // pixels that a place sees; null where a step on the way has no fixed window
  stride: number | null;
  window: Window | null;
  through: string; // that step, where it is known
  inputs: string[]; // the edges of the graph
  maps: boolean; // whether it can be shown
}

/** Place (y, x) sees `size` pixels from start + stride · (y, x) on, of the picture as the network has it. */
export interface Window {
  size: [number, number];
  stride: [number, number];
  start: [number, number];
}

/** The picture as a network is given it, and the part of the whole that this is. */
export interface Sight {
  width: number;
  height: number;
  box: [number, number, number, number]; // left, top, right, bottom in the picture's own pixels
}

export interface Network {
  id: Id;
  name: string;
  input_size: number | null;
  side: number; // of the picture for which shapes are told
  fits: "any" | "square" | "fixed"; // which pictures it takes; fixed: squares of `side` alone
  largest: number; // pixels a side at most
  classes: string[];
  layers: Layer[];
}

export interface Prediction {
  label: string;
  p: number;
}

export interface SeenLayer {
  name: string;
  kind: string;
  channels: number;
  h: number;
  w: number;
  lo: ArrayLike<number>; // a number a channel
  hi: ArrayLike<number>;
  mean: ArrayLike<number>;
  dead: number;
  etag: string;
}

export interface Look {
  key: string;
  seconds: number;
  view: Sight;
  predictions: Prediction[];
  layers: SeenLayer[];
}

export interface Unit {
  activation: { max: number; mean: number; at: [number, number]; box: [number, number, number, number] } | null;
  field: number | null;
  neighbours: { channel: number; similarity: number }[];
  index: boolean;
  history: string[];
}

export interface Option {
  name: string;
  kind: "int" | "float" | "bool" | "choice" | "text" | "picture" | "pictures";
  default: unknown;
  choices: string[] | null;
  help: string;
  multiple: boolean;
  group: string | null;
}

export interface Command {
  name: string;
  text: string;
  options: Option[];
}

export type JobState = "queued" | "running" | "done" | "failed" | "stopped" | "interrupted";

export interface JobFile {
  name: string;
  kind: string;
  url: string;
}

export interface Job {
  id: Id;
  command: string;
  options: Record<string, unknown>;
  state: JobState;
  created: number | string;
  step: number | null;
  of: number | null;
  text: string | null;
  error: string | null;
  card: Record<string, unknown> | null;
  files: JobFile[];
  resumable: boolean;
}

/** What the server refused, in its own sentence; status 0 where it did not answer at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
    this.name = "ApiError";
  }
}

const BASE = "/api";

/** The address of a resource; every part is escaped, so names may hold any sign. */
export function address(...parts: (string | number)[]): string {
  return [BASE, ...parts.map((part) => encodeURIComponent(String(part)))].join("/");
}

/** A layer's name as a part of an address: escaped once more, for servers take %2F for a / that divides it. */
export const layered = (name: string): string => name.replace(/[%/]/g, encodeURIComponent);

/** The side of the shelf's pictures: asked for again at this size they come from the browser's cache. */
export const THUMB = 160;

export function pictureUrl(id: Id, side: number): string {
  return `${address("pictures", id)}?side=${Math.round(side)}`;
}

async function failure(response: Response): Promise<ApiError> {
  let detail = "";
  try {
    const body: unknown = await response.json();
    if (body && typeof body === "object" && "detail" in body) {
      detail = typeof body.detail === "string" ? body.detail : JSON.stringify(body.detail);
    }
  } catch {
    // not JSON: the status alone must do
  }
  return new ApiError(response.status, detail || `${response.status} ${response.statusText}`.trim());
}

/** Ask; an answer other than 2xx, and none at all, is an ApiError. AbortError passes through. */
export async function request(url: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("X-Innervision", "1"); // no other page can send it: the server's guard against forged requests
  let response: Response;
  try {
    response = await fetch(url, { ...init, headers, credentials: "same-origin" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, words.noServer);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export async function get<T>(url: string, signal?: AbortSignal): Promise<T> {
  return (await request(url, { signal })).json() as Promise<T>;
}

export async function post<T>(url: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method: "POST", signal };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "Content-Type": "application/json" };
  }
  return (await request(url, init)).json() as Promise<T>;
}

export async function remove(url: string): Promise<void> {
  await request(url, { method: "DELETE" });
}

/** Send a picture's bytes as they are; the server reads them, bounded. */
export async function upload(file: Blob, name: string): Promise<Picture> {
  const headers = { "X-Name": encodeURIComponent(name), "Content-Type": "application/octet-stream" };
  const response = await request(address("pictures"), { method: "POST", body: file, headers });
  return response.json() as Promise<Picture>;
}

/**
 * Listen to an address's server-sent events; each handler gets its event's JSON. Returns how to stop.
 *
 * Names in `last` end the stream after their handler: EventSource would ask again for ever otherwise.
 */
export function listen(
  url: string,
  handlers: Record<string, (data: any) => void>,
  options: { last?: string[]; lost?: () => void } = {},
): () => void {
  const last = options.last ?? ["end", "done"];
  const source = new EventSource(url);
  for (const name of new Set([...Object.keys(handlers), ...last])) {
    source.addEventListener(name, (event) => {
      const text = (event as MessageEvent<string>).data;
      if (text === undefined) return; // EventSource's own `error`, not one that the server sent
      if (last.includes(name)) source.close();
      handlers[name]?.(text ? JSON.parse(text) : null);
    });
  }
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) options.lost?.();
  };
  return () => source.close();
}
