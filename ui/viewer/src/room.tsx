/** Where the page of a room at a relay begins. */

import { effect } from "@preact/signals";
import { Room, RTCError } from "@rtc-kernel/client";
import { type JSX, render } from "preact";
import { useState } from "preact/hooks";
import { type RoomAddress, readAddress } from "./address.ts";
import { App } from "./App.tsx";
import { Gathering } from "./gathering.ts";
import { beginWithNotebook, followAddress, makePlace } from "./page.ts";
import { Session } from "./session.ts";
import "./parts.css";
import "./page.css";

/** Under which name this tab keeps where it was, and by which token. */
const PLACE = `rtc-kernel.room ${location.pathname}`;

const host = document.getElementById("page");
if (!host) throw new Error("room.html has no #page");
// The token does not stay where it is seen, copied and kept; this tab alone has it, and keeps it when it is loaded again.
const kept = recall();
const address = readAddress(location.href, kept?.url);
const token = address.token ?? (kept?.url === address.url ? kept.token : null);
if (location.hash !== address.rest) history.replaceState(null, "", location.pathname + address.rest);
if (token === null) ask(host, address, null);
else open(host, address, token);

function open(element: HTMLElement, { url, kernel }: RoomAddress, secret: string): void {
  let room: Room;
  try {
    room = new Room({ url, token: secret });
  } catch (error) {
    ask(element, address, error instanceof RTCError ? error.message : String(error));
    return;
  }
  remember({ url, token: secret });
  const gathering = new Gathering(room);
  const session = new Session(gathering, makePlace(gathering));
  const stop = room.onChange(() => {
    if (room.status === "live") return stop();
    if (room.status !== "closed" || !room.failure?.final) return;
    // The relay does not know it: it was mistyped, or is not in force any more.
    forget();
    session.dispose();
    render(null, element);
    ask(element, address, room.failure.what);
  });
  beginWithNotebook(session);
  if (kernel !== null) chooseWhenThere(session, gathering, kernel);
  render(<App session={session} />, element);
  followAddress(session);
}

function chooseWhenThere(session: Session, gathering: Gathering, wanted: string): void {
  const stop = effect(() => {
    const found = gathering.kernels.value.find((one) => one.id.startsWith(wanted));
    if (!found) return;
    queueMicrotask(() => {
      stop();
      session.setFilter({ kernel: found.id });
    });
  });
}

function ask(element: HTMLElement, where: RoomAddress, problem: string | null): void {
  document.title = "A room at a relay";
  const begin = (secret: string): void => {
    render(null, element);
    open(element, where, secret);
  };
  render(<Token url={where.url} problem={problem} onToken={begin} />, element);
}

interface TokenProps {
  url: string;
  problem: string | null;
  onToken: (secret: string) => void;
}

/** Without a token nobody is let in. */
function Token({ url, problem, onToken }: TokenProps): JSX.Element {
  const [value, setValue] = useState("");
  return (
    <main class="token">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (value.trim() !== "") onToken(value.trim());
        }}
      >
        <h1>{decodeURIComponent(new URL(url).pathname.split("/").at(-1) ?? "")}</h1>
        <p>This room is at a relay that asks for a token: that of the link, or the one that you were given.</p>
        <label>
          <span>Token</span>
          <input
            type="password"
            autoComplete="off"
            value={value}
            aria-invalid={problem !== null}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        {problem === null ? null : (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        <button type="submit" class="primary">
          Follow
        </button>
      </form>
    </main>
  );
}

interface Kept {
  url: string;
  token: string;
}

function recall(): Kept | null {
  try {
    return JSON.parse(sessionStorage.getItem(PLACE) ?? "null") as Kept | null;
  } catch {
    return null; // storage is closed to us
  }
}

function remember(place: Kept): void {
  try {
    sessionStorage.setItem(PLACE, JSON.stringify(place));
  } catch {
    // It is asked for again.
  }
}

function forget(): void {
  try {
    sessionStorage.removeItem(PLACE);
  } catch {
    // It was not kept.
  }
}
