/** The jobs of the server: the list of them, and one that is watched as it works. */

import { untrack } from "svelte";

import { ApiError, address, get, listen, post, remove, request, upload, type Picture } from "./api";
import { input, type Command, type Job, type JobFile, type Step, type Values, named, pictured, result, terms, underway } from "./jobs";
import type { Point } from "./plot";
import { studio } from "./studio.svelte";

const SOON = 2000; // ms between looks at the list while something is at work
const LATER = 12000;

/** What stands for a run that has made no picture. */
const FIGURES = ["filters.png", "sheet.png", "curve.png"];

class Jobs {
  list = $state.raw<Job[] | null>(null);
  error = $state("");
  #users = 0;
  #made = new Map<string, Promise<JobFile | undefined>>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #commands: Promise<Command[]> | undefined;

  /** Keep the list fresh for as long as a page shows it; returns how to let go. */
  use(): () => void {
    this.#users += 1;
    if (this.#users === 1) untrack(() => void this.#turn()); // whoever uses the list here need not be run again by it
    return () => {
      this.#users -= 1;
      if (this.#users === 0) clearTimeout(this.#timer);
    };
  }

  async #turn(): Promise<void> {
    clearTimeout(this.#timer);
    if (!document.hidden || !this.list) await this.load();
    if (this.#users === 0) return;
    const busy = this.list?.some(underway);
    this.#timer = setTimeout(() => void this.#turn(), busy ? SOON : LATER);
  }

  async load(): Promise<void> {
    try {
      const found = await get<Job[] | { jobs: Job[] }>(address("jobs"));
      const list = Array.isArray(found) ? found : found.jobs;
      this.list = [...list].sort((a, b) => when(b) - when(a));
      this.error = "";
    } catch (error) {
      this.error = (error as Error).message;
    }
  }

  /** Those of some commands, latest first. */
  of(...commands: string[]): Job[] {
    return (this.list ?? []).filter((job) => commands.includes(job.command));
  }

  /** The picture that a run has made, if there is one: asked for once it has ended. */
  made(job: Job): Promise<JobFile | undefined> {
    if (underway(job)) return Promise.resolve(undefined);
    const key = `${job.id} ${job.state} ${job.ended ?? ""}`;
    let found = this.#made.get(key);
    if (!found) {
      found = get<Job>(address("jobs", job.id)).then(
        ({ files = [] }) => result(files) ?? FIGURES.map((name) => named(files, name)).find((file) => file),
        () => undefined,
      );
      this.#made.set(key, found);
    }
    return found;
  }

  commands(): Promise<Command[]> {
    this.#commands ??= get<Command[]>(address("commands"));
    this.#commands.catch(() => (this.#commands = undefined));
    return this.#commands;
  }

  /** Start a job; what the server refuses is told, and null returned. */
  async start(command: string, options: Values): Promise<string | null> {
    try {
      const { id } = await post<{ id: string }>(address("jobs"), { command, options });
      await this.load();
      if (this.#users) void this.#turn();
      return id;
    } catch (error) {
      studio.say((error as Error).message, "bad");
      return null;
    }
  }

  async act(job: Pick<Job, "id">, what: "stop" | "resume"): Promise<boolean> {
    try {
      await post(address("jobs", job.id, what));
      await this.load();
      return true;
    } catch (error) {
      studio.say((error as Error).message, "bad");
      return false;
    }
  }

  async discard(job: Pick<Job, "id">): Promise<boolean> {
    try {
      await remove(address("jobs", job.id));
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) {
        studio.say((error as Error).message, "bad");
        return false;
      }
    }
    this.list = this.list?.filter((other) => other.id !== job.id) ?? null;
    return true;
  }
}

export const jobs = new Jobs();

/** When a job was made, in ms. */
export function when(job: Job): number {
  if (typeof job.created === "number") return job.created * (job.created < 1e11 ? 1000 : 1);
  return Date.parse(job.created ?? "") || 0;
}

/** Bring a file of a run among the studio's pictures: to look at, or to go on from. */
export async function adopt(file: JobFile, name: string): Promise<Picture | null> {
  try {
    const bytes = await (await request(file.url)).blob();
    const taken = await upload(bytes, name);
    if (studio.state) {
      const pictures = [taken, ...studio.state.pictures.filter((other) => other.id !== taken.id)];
      studio.state = { ...studio.state, pictures };
    }
    return taken;
  } catch (error) {
    studio.say((error as Error).message, "bad");
    return null;
  }
}

/** One job as it works: its state, its latest picture, and its terms over the steps. */
export class Watch {
  job = $state.raw<Job | null>(null);
  error = $state("");
  step = $state.raw<Step | null>(null);
  /** The latest picture, live: an address. */
  frame = $state("");
  /** What was said last beside the steps. */
  note = $state("");
  /** Grows whenever the lines have grown. */
  grown = $state(0);
  /** Seconds to go by the latest pace. */
  left = $state<number | undefined>();
  lines = new Map<string, Point[]>();

  #close: (() => void) | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #drawn: ReturnType<typeof setTimeout> | undefined;
  #began: { step: number; at: number } | null = null;
  #id = "";
  #version = 0;

  /** Watch a job; what was watched before is let go. */
  async open(id: string): Promise<void> {
    this.close();
    if (this.#id !== id) this.frame = "";
    this.#id = id;
    this.error = this.note = "";
    this.step = null;
    this.left = undefined;
    this.lines = new Map();
    this.#began = null;
    if (!(await this.refresh())) return;
    if (this.#id !== id) return;
    this.#close = listen(
      `${address("jobs", id)}/events`,
      {
        state: (data) => this.#change(data),
        step: (data) => this.#advance(data),
        note: (data) => (this.note = data?.text ?? ""),
        file: (data) => this.#gain(data),
        frame: (data) => (this.frame = data?.image ?? data?.url ?? this.frame),
        end: (data) => {
          this.#change(data);
          this.#draw(true);
          void this.refresh();
          void jobs.load();
        },
      },
      { last: ["end"], lost: () => this.#again() },
    );
  }

  close(): void {
    this.#close?.();
    this.#close = undefined;
    clearTimeout(this.#retry);
    clearTimeout(this.#drawn);
    this.#drawn = undefined;
  }

  async refresh(): Promise<boolean> {
    const id = this.#id;
    try {
      const found = await get<Job>(address("jobs", id));
      if (id !== this.#id) return false;
      this.job = { ...found, files: (found.files ?? []).map((file) => ({ ...file })) };
      if (!underway(found)) this.frame = "";
      this.error = "";
      return true;
    } catch (error) {
      if (id !== this.#id) return false;
      if (this.job?.id !== id) this.job = null; // the one before stood until now, so that nothing jumps
      this.error = (error as Error).message;
      if (!(error instanceof ApiError && error.status === 404)) this.#again();
      return false;
    }
  }

  /** The server went away, or refused: ask again by and by, for it may be starting anew. */
  #again(): void {
    clearTimeout(this.#retry);
    const id = this.#id;
    this.#retry = setTimeout(() => id === this.#id && void this.open(id), 3000);
  }

  #change(data: Partial<Job> | null): void {
    if (!this.job || !data) return;
    const { files, ...rest } = data;
    this.job = { ...this.job, ...rest, files: files?.length ? files : this.job.files };
  }

  #advance(data: Step): void {
    if (!data || typeof data.step !== "number") return;
    const found = terms(data);
    const epoch = "accuracy" in found; // what a training says at an epoch's end
    for (const [name, value] of Object.entries(found)) {
      const key = epoch && name === "loss" ? "training_loss" : epoch && name === "accuracy" ? "training_accuracy" : name;
      const line = this.lines.get(key) ?? [];
      // what was gone on with, or is told once more by a server that came back, replaces what was
      while (line.length && line.at(-1)![0] >= data.step) line.pop();
      line.push([data.step, value]);
      this.lines.set(key, line);
    }
    this.step = { ...data, of: data.of ?? this.step?.of ?? this.job?.of ?? undefined };
    const now = performance.now();
    this.#began ??= { step: data.step, at: now };
    const { step, at } = this.#began;
    // those that come at once were kept, and tell nothing of the pace
    if (now - at < 300 && data.step > step) this.#began = { step: data.step, at: this.#began.at };
    const of = this.step?.of ?? 0;
    if (data.step > step && of > data.step && now - at > 2000) this.left = (((now - at) / 1000) * (of - data.step)) / (data.step - step);
    this.#draw(false);
  }

  #gain(file: JobFile & { [more: string]: unknown }): void {
    if (!this.job || !file?.name) return;
    const files = (this.job.files ?? []).filter((other) => other.name !== file.name);
    // a file that was written anew has another address
    const url = file.url.includes("v=") ? file.url : `${file.url}?v=${++this.#version}`;
    this.job = { ...this.job, files: [...files, { ...file, url }] };
    if (pictured(file) && !input(file) && underway(this.job)) this.frame = url;
  }

  /** Curves are drawn a few times a second, however fast steps come. */
  #draw(now: boolean): void {
    if (now) {
      clearTimeout(this.#drawn);
      this.#drawn = undefined;
      this.grown += 1;
      return;
    }
    this.#drawn ??= setTimeout(() => {
      this.#drawn = undefined;
      this.grown += 1;
    }, 250);
  }
}
