/** What every page shares: the server's state, the chosen picture and network, and messages. */

import { ApiError, address, get, pictureUrl, remove, upload, type Network, type Picture, type StudioState } from "./api";
import { keep, recall } from "./i18n.svelte";

export interface Message {
  id: number;
  kind: "good" | "bad" | "plain";
  text: string;
}

class Studio {
  state = $state.raw<StudioState | null>(null);
  error = $state<ApiError | null>(null);
  /** The picture that the pages look at, dream into or paint: one choice for all of them. */
  picture = $state.raw<Picture | null>(null);
  net = $state<string>("");
  messages = $state<Message[]>([]);
  #networks = new Map<string, Promise<Network>>();
  #next = 1;

  get pictures(): Picture[] {
    return this.state ? [...this.state.pictures, ...this.state.samples] : [];
  }

  /** Ask for the state; the first answer also settles the first picture and network. */
  async load(): Promise<void> {
    this.error = null;
    try {
      this.state = await get<StudioState>(address("state"));
    } catch (error) {
      this.error = error as ApiError;
      return;
    }
    const { networks } = this.state;
    const kept = recall("innervision.net");
    if (!networks.some((n) => n.id === this.net)) {
      this.net = (networks.find((n) => n.id === kept) ?? networks[0])?.id ?? "";
    }
    const chosen = this.picture?.id ?? recall("innervision.picture");
    this.picture = this.find(chosen) ?? this.pictures[0] ?? null;
  }

  find(id: string | null | undefined): Picture | null {
    return this.pictures.find((picture) => picture.id === id) ?? null;
  }

  /** The picture that a run is of, as its options name it: a run hands on no copy of one that was sent. */
  urlOf(options: Record<string, unknown> | undefined): string | undefined {
    const { content, source, image } = options ?? {};
    const id = [content, source, image].find((each) => typeof each === "string");
    const picture = this.find(id as string | undefined);
    return picture ? pictureUrl(picture.id, 1600) : undefined;
  }

  choose(picture: Picture): void {
    this.picture = picture;
    keep("innervision.picture", picture.id);
  }

  use(net: string): void {
    this.net = net;
    keep("innervision.net", net);
  }

  /** A network's layers and classes, asked for once. */
  network(id: string): Promise<Network> {
    let found = this.#networks.get(id);
    if (!found) {
      found = get<Network>(address("networks", id));
      this.#networks.set(id, found);
      found.catch(() => this.#networks.delete(id)); // so that another try may do better
    }
    return found;
  }

  /** Send pictures; the last one that the server took is chosen. What it refuses is told. */
  async add(files: Iterable<Blob>, name?: string): Promise<Picture | null> {
    let last: Picture | null = null;
    for (const file of files) {
      try {
        last = await upload(file, name ?? (file instanceof File && file.name ? file.name : "picture.png"));
        const taken = last;
        if (this.state) {
          const others = this.state.pictures.filter((picture) => picture.id !== taken.id);
          this.state = { ...this.state, pictures: [taken, ...others] };
        }
      } catch (error) {
        this.say((error as Error).message, "bad");
      }
    }
    if (last) this.choose(last);
    return last;
  }

  async discard(picture: Picture): Promise<void> {
    try {
      await remove(address("pictures", picture.id));
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) {
        this.say((error as Error).message, "bad");
        return;
      }
    }
    if (this.state) {
      const pictures = this.state.pictures.filter((other) => other.id !== picture.id);
      this.state = { ...this.state, pictures };
    }
    if (this.picture?.id === picture.id) this.picture = this.pictures[0] ?? null;
  }

  /** Show a message for a while; bad news stays longer. */
  say(text: string, kind: Message["kind"] = "plain"): void {
    const id = this.#next++;
    this.messages = [...this.messages.filter((m) => m.text !== text), { id, kind, text }].slice(-4);
    setTimeout(() => this.unsay(id), kind === "bad" ? 9000 : 4500);
  }

  unsay(id: number): void {
    this.messages = this.messages.filter((message) => message.id !== id);
  }
}

export const studio = new Studio();
