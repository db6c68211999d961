/** What must a reader know about the picture itself: is it live, whole, of another time? */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { countOf, formatBytes, formatDay, formatTicking, formatTime } from "./format.ts";
import { Icon } from "./icons.tsx";
import type { Session } from "./session.ts";

export function Banners({ session }: { session: Session }): JSX.Element {
  session.status.value;
  const { doc, travel } = session;
  const { kernel, meta } = doc;
  const at = travel.at.value;
  const gaps = meta?.gap ?? [];
  const gap = gaps.at(-1);
  return (
    <div class="banners">
      <Connection session={session} />
      {session.room && session.room.room.omittedCount > 0 ? (
        <p class="banner warn" role="status">
          {countOf(session.room.room.omittedCount, "more kernel")} in this room: as many are followed as this page can.
        </p>
      ) : null}
      {session.problem.value ? (
        <p class="banner bad" role="alert">
          {session.problem.value}
        </p>
      ) : null}
      {kernel && session.isOver.value ? (
        <p class="banner" role="status">
          The kernel has ended{kernel.ended_at === null ? "" : ` at ${formatTime(kernel.ended_at)}`}.{" "}
          {doc.status === "live" ? "This is its history." : "This is the last picture of its history."}
        </p>
      ) : null}
      {kernel?.state === "dead" && !session.isOver.value ? (
        <p class="banner bad" role="status">
          The kernel is dead
          {kernel.exit_code === null ? "" : ` (exit code ${kernel.exit_code}${signalOf(kernel.exit_code)})`}
          {kernel.ended_at === null ? "" : ` since ${formatTime(kernel.ended_at)}`}. What you see is its history.
        </p>
      ) : null}
      {meta && meta.health.status !== "ok" ? (
        <p class="banner warn" role="status">
          The recording is {meta.health.status}
          {meta.health.reason ? `: ${meta.health.reason}` : "."}
        </p>
      ) : null}
      {gap ? (
        <p class="banner warn" role="status">
          There is a gap in the recording{gap.since === null ? "" : ` from ${formatTime(gap.since)}`}
          {gap.until === null ? "" : ` to ${formatTime(gap.until)}`}:{" "}
          {gap.message_count
            ? `${countOf(gap.message_count, "message")} (${formatBytes(gap.size_bytes ?? 0)}) passed unseen`
            : "nobody knows what passed"}
          {gaps.length > 1 ? `; ${gaps.length} gaps in all` : ""}.
        </p>
      ) : null}
      {meta?.coverage === "iopub-only" ? (
        <p class="banner warn" role="status">
          Only what the kernel broadcasts is recorded.
        </p>
      ) : null}
      {at === null ? null : (
        <p class="banner past" role="status">
          <span>
            As it was at{" "}
            <time>
              {formatDay(at)} {formatTime(at, at)}
            </time>
            , not live
          </span>
          <button type="button" class="worded" onClick={() => travel.live()}>
            <Icon name="down" />
            Back to live
          </button>
        </p>
      )}
    </div>
  );
}

function Connection({ session }: { session: Session }): JSX.Element | null {
  session.status.value; // who reads a signal is drawn anew for signals alone, not with what is around it
  const { doc } = session;
  const isAway = doc.status === "away" || doc.status === "connecting";
  const [time, setTime] = useState(Date.now() / 1000);
  useEffect(() => {
    if (!isAway) return undefined;
    const timer = window.setInterval(() => setTime(Date.now() / 1000), 1000);
    return () => window.clearInterval(timer);
  }, [isAway]);
  if (doc.status === "closed") {
    const failure = doc.failure;
    return (
      <p class="banner bad" role="alert">
        {failure ? `${failure.what}; ${failure.remedy}` : "The connection was closed."}
        {doc.liveAt > 0 ? ` The picture is as of ${formatTime(doc.liveAt)}.` : ""}
      </p>
    );
  }
  // Its server goes with it: that there is no connection is no news then.
  if (session.isOver.value) return null;
  if (doc.status === "live" || (doc.status === "connecting" && doc.liveAt === 0)) return null;
  return (
    <p class="banner warn" role="status">
      The connection is gone; trying again.{" "}
      {doc.liveAt > 0 ? (
        <span aria-hidden="true">
          The picture is {formatTicking(Math.max(0, Math.floor(time - doc.liveAt))).replace(".0 s", " s")} old.
        </span>
      ) : null}
    </p>
  );
}

const SIGNALS: Record<number, string> = { 2: "SIGINT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM" };
const signalOf = (code: number): string => (code < 0 && SIGNALS[-code] ? `, ${SIGNALS[-code]}` : "");
