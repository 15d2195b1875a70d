/** Where the page is, kept in the address's hash: #/look?net=vgg19, #/unit/vgg19/conv5_1/11. */

export interface Route {
  page: string;
  parts: string[];
  query: Record<string, string>;
}

export const PAGES = ["look", "keeps", "dream", "paint", "learn", "runs"] as const;

export function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  const [page = "", ...parts] = path.split("/").filter(Boolean).map(decode);
  return { page: page || "look", parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a hash typed by hand
  }
}

/** The hash of a page; parts and query are escaped, empty query values left out. */
export function link(
  page: string,
  parts: (string | number)[] = [],
  query: Record<string, string | number | null | undefined> = {},
): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const path = [page, ...parts.map((part) => encodeURIComponent(String(part)))].join("/");
  const text = search.toString();
  return `#/${path}${text ? `?${text}` : ""}`;
}

class Router {
  now = $state<Route>(parse(location.hash));

  constructor() {
    addEventListener("hashchange", () => (this.now = parse(location.hash)));
  }

  go(hash: string): void {
    location.hash = hash;
  }

  /** Change the address without a step in the history: for a page's own state. */
  replace(hash: string): void {
    if (hash === location.hash) return;
    history.replaceState(null, "", hash);
    this.now = parse(hash);
  }
}

export const router = new Router();
