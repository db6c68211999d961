import { defineConfig } from "vitest/config";

// Real kernels start within seconds; a test that needs a minute has failed.
export default defineConfig({ test: { testTimeout: 60_000, hookTimeout: 60_000, silent: "passed-only" } });
