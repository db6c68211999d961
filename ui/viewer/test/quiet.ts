import type { Change } from "@rtc-kernel/client";

/** A change that says nothing of anything but executions. */
export const QUIET: Omit<Change, "executions"> = {
  reset: false,
  meta: false,
  kernels: false,
  cells: false,
  comms: new Set(),
  queries: new Set(),
  requests: new Set(),
};
