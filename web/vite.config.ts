import { fileURLToPath } from "node:url";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// The server's strict Content-Security-Policy allows no inline script, so nothing is inlined here:
// no preload polyfill, no data: modules. In development the API is the server's on its usual port.
export default defineConfig({
  plugins: [svelte()],
  base: "./",
  build: {
    outDir: fileURLToPath(new URL("../src/innervision/studio/static", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": process.env.STUDIO ?? "http://127.0.0.1:8765" } },
  resolve: process.env.VITEST ? { conditions: ["browser"] } : undefined,
  test: { environment: "happy-dom", include: ["test/**/*.test.ts"], css: false },
});
