/**
 * Follow a Jupyter kernel's live document, and act through it.
 *
 * `connect(new WebSocketTransport({ url }))` gives a {@link LiveDocument}: typed records of what runs, and `run`,
 * `interrupt`, `answer` and the like. README.md has an example, docs/document.md the
 * tables, docs/requests.md what can be asked for, docs/protocol.md the bytes.
 */

export * from "./records.ts";
export { type Change, type ExecutionChange } from "./changes.ts";
export {
  type CommLike,
  type CommOptions,
  CommTransport,
  type FutureLike,
  healthFromJson,
  type KernelLike,
  type Link,
  type Links,
  makeComm,
  type Peer,
  type Shared,
  type ShareOptions,
} from "./comm.ts";
export { connect, LiveDocument, type Status } from "./document.ts";
export { RTCError } from "./errors.ts";
export { arrivals, beganAt, endedAt, executionAt, times, UNKNOWN } from "./moments.ts";
export { type Presence } from "./presence.ts";
export { type RelayOptions, RelayTransport } from "./relay.ts";
export { type Member, Room, type RoomOptions } from "./room.ts";
export { Run, type RunOptions } from "./run.ts";
export { hasEnded } from "./schema.ts";
export { inTurn } from "./turns.ts";
export {
  type Channel,
  type ChannelEvents,
  type Completion,
  type Health,
  type HistoryPage,
  type HistoryQuery,
  type RoomName,
  type Transport,
} from "./transport.ts";
export { decodeBlob, isBinaryType, sameValue } from "./values.ts";
export { type WebSocketClass, type WebSocketLike, type WebSocketOptions, WebSocketTransport } from "./websocket.ts";
