/**
 * What can go wrong, and what is to be done.
 *
 * Pure. The close codes are those of docs/protocol.md: the same words, and for those that no reconnecting heals a
 * sentence for whoever looks at the page.
 */

/** What happened, and what to do: each one clause without a full stop. */
export class RTCError extends Error {
  readonly what: string;
  readonly remedy: string;
  /** The WebSocket close code or the HTTP status, where there was one. */
  readonly code: number | null;
  /** Whether trying again cannot help. */
  readonly final: boolean;

  constructor(what: string, remedy: string, code: number | null = null, final = false) {
    super(`${what}: ${remedy}`);
    this.name = "RTCError";
    this.what = what;
    this.remedy = remedy;
    this.code = code;
    this.final = final;
  }
}

export const CLOSE_CODES = {
  malformed: 4400,
  unauthorized: 4401,
  "read-only": 4403,
  forbidden: 4405,
  "no-such-room": 4404,
  "handshake-timeout": 4408,
  "wrong-epoch": 4409,
  "too-large": 4413,
  quota: 4429,
  "too-many-peers": 4430,
  revoked: 4431,
  slow: 4508,
  stopping: 1012,
} as const;

export type CloseReason = keyof typeof CLOSE_CODES;

/** Closes that end a document for good: what happened, what to do. */
const FINAL: { readonly [reason in CloseReason]?: readonly [what: string, remedy: string] } = {
  unauthorized: ["the token is missing, wrong or expired", "ask for a new link with %rtc share"],
  "read-only": ["an update of what only the agent writes was refused", "reload the page; if it comes again, report it"],
  forbidden: ["this link may only look", "ask for one that may run code: %rtc share --role run"],
  "no-such-room": ["there is no such kernel here any more", "`jupyter rtc list` shows the kernels that live"],
  revoked: ["the link was withdrawn", "ask for a new one with %rtc share"],
};

/** Closes after which another attempt may succeed: what happened. */
const PASSING: { readonly [reason in CloseReason]?: string } = {
  malformed: "the agent could not read a message of ours",
  "handshake-timeout": "the connection was too slow to begin",
  "wrong-epoch": "the document began a new life",
  "too-large": "a message was larger than the agent takes",
  quota: "more messages were sent than the agent takes",
  "too-many-peers": "as many peers as allowed are connected",
  slow: "the document came faster than it could be read",
  stopping: "the agent stops or starts again",
};

/** The word of a close code; null for codes that are not ours. */
export function reasonOf(code: number | null): CloseReason | null {
  const found = Object.entries(CLOSE_CODES).find(([, known]) => known === code);
  return found ? (found[0] as CloseReason) : null;
}

/** What a close says. An error that is not `final` is followed by another attempt. */
export function closeError(code: number | null): RTCError {
  const reason = reasonOf(code);
  const final = reason === null ? undefined : FINAL[reason];
  if (final) return new RTCError(final[0], final[1], code, true);
  const what = (reason === null ? undefined : PASSING[reason]) ?? "the connection is gone";
  return new RTCError(what, "it is tried again by itself", code);
}

/** What the agent sent cannot be read. */
export function malformed(what: string, cause?: unknown): RTCError {
  const error = new RTCError(`the agent sent ${what}`, "report it", CLOSE_CODES.malformed);
  error.cause = cause;
  return error;
}

/** What has become of a request that was refused. `reason`: of its row, `<column>: what is wrong`. */
export function refusal(reason: string | null): RTCError {
  return new RTCError("the request was refused", reason || "the agent gave no reason");
}
