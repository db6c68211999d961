import { defineConfig } from "vitest/config";

export default defineConfig({
  ssr: { resolve: { conditions: ["rtc-source", "module", "node", "development|production"] } },
  // Real kernels start within seconds; a test that needs a minute has failed.
  test: { testTimeout: 60_000, hookTimeout: 60_000, expect: { poll: { timeout: 30_000 } }, silent: "passed-only" },
});
