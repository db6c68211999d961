/**
 * What does one message of y-protocols say?
 *
 * Pure: bytes in, values out, and back. Any bytes give a value or RTCError, nothing else.
 * https://github.com/yjs/y-protocols/blob/master/PROTOCOL.md
 */

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { messageYjsSyncStep1, messageYjsSyncStep2, messageYjsUpdate } from "y-protocols/sync";

import { malformed } from "./errors.ts";

const SYNC = 0;
const AWARENESS = 1;
const AUTH = 2;
const QUERY = 3;

export type Message =
  | { type: "step1"; vector: Uint8Array }
  | { type: "step2"; update: Uint8Array }
  | { type: "update"; update: Uint8Array }
  | { type: "awareness"; update: Uint8Array }
  | { type: "denied"; reason: string }
  | { type: "query" };

/** The message that asks for everything beyond a state vector. */
export const writeStep1 = (vector: Uint8Array): Uint8Array => write(SYNC, messageYjsSyncStep1, vector);

/** The message that answers a step 1. */
export const writeStep2 = (update: Uint8Array): Uint8Array => write(SYNC, messageYjsSyncStep2, update);

/** The message that carries one update. */
export const writeUpdate = (update: Uint8Array): Uint8Array => write(SYNC, messageYjsUpdate, update);

/** The message that carries awareness, as y-protocols encodes it. */
export function writeAwareness(update: Uint8Array): Uint8Array {
  const encoder = encoding.createEncoder();
  encoding.writeVarUint(encoder, AWARENESS);
  encoding.writeVarUint8Array(encoder, update);
  return encoding.toUint8Array(encoder);
}

/**
 * One message.
 *
 * @throws RTCError (4400): anything else than exactly one message of a known type.
 */
export function readMessage(data: Uint8Array): Message {
  let message: Message | null;
  const decoder = decoding.createDecoder(data);
  try {
    message = readBody(decoder);
  } catch (error) {
    throw malformed("what is no y-protocols message", error); // lib0 throws whatever the byte makes it throw
  }
  if (message === null || decoding.hasContent(decoder)) throw malformed("what is no y-protocols message");
  return message;
}

function readBody(decoder: decoding.Decoder): Message | null {
  switch (decoding.readVarUint(decoder)) {
    case SYNC:
      return readSync(decoder);
    case AWARENESS:
      return { type: "awareness", update: decoding.readVarUint8Array(decoder) };
    case AUTH:
      return decoding.readVarUint(decoder) === 0 ? { type: "denied", reason: decoding.readVarString(decoder) } : null;
    case QUERY:
      return { type: "query" };
    default:
      return null;
  }
}

function readSync(decoder: decoding.Decoder): Message | null {
  const kind = decoding.readVarUint(decoder);
  const body = decoding.readVarUint8Array(decoder);
  switch (kind) {
    case messageYjsSyncStep1:
      return { type: "step1", vector: body };
    case messageYjsSyncStep2:
      return { type: "step2", update: body };
    case messageYjsUpdate:
      return { type: "update", update: body };
    default:
      return null;
  }
}

function write(type: number, kind: number, body: Uint8Array): Uint8Array {
  const encoder = encoding.createEncoder();
  encoding.writeVarUint(encoder, type);
  encoding.writeVarUint(encoder, kind);
  encoding.writeVarUint8Array(encoder, body);
  return encoding.toUint8Array(encoder);
}
