import { defineConfig } from "vitest/config";

export default defineConfig({
  ssr: { resolve: { conditions: ["rtc-source", "module", "node", "development|production"] } },
});
