/** What a page keeps that starts jobs of a command: the command, the form's values, and the job that is shown. */

import { untrack } from "svelte";

import { jobs, Watch } from "../lib/job.svelte";
import { changed, underway, type Command, type Job, type Values } from "../lib/jobs";
import { link, router } from "../lib/router.svelte";
import { words } from "./words";

export class Bench {
  readonly page: string;
  readonly name: string;
  command = $state.raw<Command | null>(null);
  values = $state.raw<Values>({});
  failed = $state("");
  busy = $state(false);
  readonly watch = new Watch();

  readonly #asked = $derived.by(() => (router.now.page === this.page ? (router.now.query.run ?? "") : ""));
  /** The job shown: the one asked for, or else one that is at work; where the page says so, else the latest. */
  readonly shown: string = $derived.by(() => {
    const own = jobs.of(this.name);
    return this.#asked || (own.find(underway) ?? (this.#latest ? own[0] : undefined))?.id || "";
  });

  readonly #latest: boolean;
  readonly #begin: (command: Command, given?: Job["options"]) => Values;

  /**
   * To be made as a component is: it keeps the list of jobs fresh for as long as that stands.
   * begin: what the form begins with; given: the options of the run that the page opens at.
   */
  constructor(page: string, name: string, begin: (command: Command, given?: Job["options"]) => Values, latest = false) {
    this.page = page;
    this.name = name;
    this.#begin = begin;
    this.#latest = latest;
    $effect(() => jobs.use());
    $effect(() => {
      const id = this.shown;
      if (!id) return;
      untrack(() => this.watch.open(id));
      return () => this.watch.close();
    });
    void this.load();
  }

  load = async (): Promise<void> => {
    this.failed = "";
    try {
      const [commands] = await Promise.all([jobs.commands(), jobs.list ? undefined : jobs.load()]);
      const command = commands.find((each) => each.name === this.name) ?? null;
      if (command) this.values = this.#begin(command, this.#opened()?.options);
      else this.failed = words.noCommand(this.name);
      this.command = command;
    } catch (error) {
      this.failed = (error as Error).message;
    }
  };

  /** The studio's own run that the page opens at: the one asked for, or else one that is at work. */
  #opened(): Job | undefined {
    const own = jobs.of(this.name).filter((job) => job.own !== false);
    return this.#asked ? own.find((job) => job.id === this.#asked) : own.find(underway);
  }

  href = (id?: string): string => link(this.page, [], { run: id });

  /** Start a job and show it; false where the server refused it, which was told. */
  async start(values: Values = this.values): Promise<boolean> {
    if (!this.command) return false;
    this.busy = true;
    const id = await jobs.start(this.name, changed(this.command, values));
    this.busy = false;
    if (id) router.go(this.href(id));
    return id !== null;
  }
}
