/**
 * What is asked of the kernel's agent beyond the document: links, who is here, others' requests.
 *
 * Owns nothing but the news that links have changed, so that a list of them asks again.
 */

import { signal } from "@preact/signals";
import type { CommTransport } from "@rtc-kernel/client";

import type { PanelEnv } from "./env.ts";

/** Grows when a link was made or withdrawn here. */
export const linksChanged = signal(0);

/** The kernel's own channel: here every document's transport is one. */
export const channel = ({ doc }: PanelEnv): CommTransport => doc.transport as CommTransport;

export const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));
