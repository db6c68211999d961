/**
 * What does the page follow?
 *
 * Types alone: a kernel's document, or what a room makes of those of its kernels. Whoever draws knows no difference, but for
 * what is about several kernels at once (`Session.room`).
 */

import type { LiveDocument } from "@rtc-kernel/client";

export type Followed = Pick<
  LiveDocument,
  | "answer"
  | "cancel"
  | "cells"
  | "comms"
  | "executions"
  | "failure"
  | "interrupt"
  | "kernel"
  | "liveAt"
  | "meta"
  | "name"
  | "onChange"
  | "onStatus"
  | "peers"
  | "release"
  | "requests"
  | "restart"
  | "role"
  | "run"
  | "segments"
  | "setPresence"
  | "status"
  | "transport"
>;
