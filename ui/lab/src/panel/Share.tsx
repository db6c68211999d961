/** How is a link given to somebody? A dialog: what it allows and how long, then the link, to copy and as a QR code. */

import type { JSX } from "preact";
import { render } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Shared } from "@rtc-kernel/client";

import { channel, linksChanged, message } from "./doors.ts";
import type { PanelEnv } from "./env.ts";
import { expiries, type LinkRole, serverBase, untilWhen, usualExpiry, type Way, waysTo } from "./links.ts";
import { drawQr } from "./qr.ts";
import { putStyle } from "./style.ts";

const NAME_CHARS = 64;

/** Ask what is to be shared, over the page. It is gone with the document. */
export function openShare(env: PanelEnv): void {
  const { trans } = env;
  const page = document;
  const opener = focused(page);
  const dialog = page.createElement("dialog");
  dialog.className = "rtc-Share";
  dialog.setAttribute("aria-label", trans.__("Share this kernel"));
  page.body.append(dialog);
  putStyle(dialog);
  render(<Share env={env} close={() => dialog.close()} />, dialog);
  dialog.addEventListener("close", () => {
    render(null, dialog);
    dialog.remove();
    opener?.focus();
  });
  env.onDispose(() => dialog.close());
  dialog.showModal();
}

/** What has the focus, within whatever shadow. */
function focused(page: Document): HTMLElement | null {
  let element = page.activeElement;
  while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  return element instanceof HTMLElement ? element : null;
}

function Share({ env, close }: { env: PanelEnv; close: () => void }): JSX.Element {
  const [made, setMade] = useState<Shared | null>(null);
  return made === null ? <Wish env={env} close={close} tell={setMade} /> : <Made env={env} close={close} made={made} />;
}

function Wish({ env, close, tell }: { env: PanelEnv; close: () => void; tell: (made: Shared) => void }): JSX.Element {
  const { trans } = env;
  const [role, setRole] = useState<LinkRole>("view");
  const [name, setName] = useState("");
  const [chosen, setChosen] = useState<number | null | undefined>(undefined);
  const [problem, setProblem] = useState("");
  const [isAsking, setAsking] = useState(false);
  const expiresS = chosen === undefined ? usualExpiry(role) : chosen;
  const id = useId();
  const make = async (event: Event): Promise<void> => {
    event.preventDefault();
    setAsking(true);
    setProblem("");
    try {
      const wish = { role, ...(name.trim() && { name: name.trim() }), ...(expiresS !== null && { expiresS }) };
      const made = await channel(env).share(wish);
      linksChanged.value++;
      tell(made);
    } catch (error) {
      setAsking(false);
      setProblem(message(error));
    }
  };
  const { kernel } = env.doc;
  return (
    <form onSubmit={(event) => void make(event)}>
      <h2>{trans.__("Share this kernel")}</h2>
      {kernel ? <p class="rtc-dim">{kernel.notebook?.split("/").at(-1) ?? kernel.display_name}</p> : null}
      <fieldset>
        <legend>{trans.__("Whoever has the link")}</legend>
        <Role role="view" chosen={role} choose={setRole} word={trans.__("may watch")}>
          {trans.__("sees the history and all that runs, and changes nothing")}
        </Role>
        <Role role="run" chosen={role} choose={setRole} word={trans.__("may run code")}>
          {trans.__("may also run, interrupt and restart: all that you may do on that machine")}
        </Role>
      </fieldset>
      <div class="rtc-fields">
        <label for={`${id}-name`}>{trans.__("Name")}</label>
        <input
          id={`${id}-name`}
          class="jp-mod-styled"
          type="text"
          maxLength={NAME_CHARS}
          autocomplete="off"
          value={name}
          placeholder={trans.__("whom it is for; others see it")}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <label for={`${id}-expiry`}>{trans.__("Holds")}</label>
        <select
          id={`${id}-expiry`}
          value={String(expiresS)}
          onChange={(event) => {
            const { value } = event.currentTarget;
            setChosen(value === "null" ? null : Number(value));
          }}
        >
          {expiries(trans).map(({ seconds, label }) => (
            <option key={label} value={String(seconds)}>
              {label}
            </option>
          ))}
        </select>
      </div>
      {problem ? (
        <p class="rtc-problem" role="alert">
          {problem}
        </p>
      ) : null}
      <div class="rtc-buttons">
        <button type="button" class="jp-Dialog-button jp-mod-reject jp-mod-styled" onClick={close}>
          {trans.__("Cancel")}
        </button>
        <button type="submit" class="jp-Dialog-button jp-mod-accept jp-mod-styled" disabled={isAsking}>
          {trans.__("Create link")}
        </button>
      </div>
    </form>
  );
}

interface RoleProps {
  role: LinkRole;
  chosen: LinkRole;
  choose: (role: LinkRole) => void;
  word: string;
  children: string;
}

function Role({ role, chosen, choose, word, children }: RoleProps): JSX.Element {
  return (
    <label class="rtc-role">
      <input type="radio" name="role" value={role} checked={role === chosen} onChange={() => choose(role)} />
      <span>
        <b>{word}</b>
        <small>{children}</small>
      </span>
    </label>
  );
}

function Made({ env, close, made }: { env: PanelEnv; close: () => void; made: Shared }): JSX.Element {
  const { trans } = env;
  const ways = waysTo(made, serverBase(document));
  const [at, setAt] = useState(0);
  const way = ways[at] ?? (ways[0] as Way);
  const field = useRef<HTMLInputElement>(null);
  const [copied, setCopied] = useState("");
  useEffect(() => {
    setCopied("");
    field.current?.select();
  }, [way.url]);
  useEffect(() => field.current?.focus(), []);
  const copy = async (): Promise<void> => {
    const isThere = field.current !== null && (await copyText(field.current));
    setCopied(isThere ? trans.__("Copied") : trans.__("Select the link and copy it: this browser does not let us"));
  };
  const until = untilWhen(made.expires_at, trans);
  return (
    <div>
      <h2>{trans.__("Link for %1", made.name)}</h2>
      <p>
        {made.role === "run"
          ? trans.__("Whoever has this link may watch and run code, %1.", until)
          : trans.__("Whoever has this link may watch, %1.", until)}
      </p>
      {ways.length > 1 ? (
        <div class="rtc-ways" role="group" aria-label={trans.__("Which way the link goes")}>
          {ways.map(({ kind, url }, index) => (
            <button
              key={url}
              type="button"
              class="jp-mod-styled"
              aria-pressed={index === at}
              onClick={() => setAt(index)}
            >
              {kind === "server" ? trans.__("Through the Jupyter server") : trans.__("To the kernel's machine")}
            </button>
          ))}
        </div>
      ) : null}
      <div class="rtc-link">
        <input
          ref={field}
          class="jp-mod-styled"
          type="text"
          readOnly
          value={way.url}
          aria-label={trans.__("Link")}
          onFocus={(event) => event.currentTarget.select()}
        />
        <button type="button" class="jp-mod-styled jp-mod-accept" onClick={() => void copy()}>
          {trans.__("Copy")}
        </button>
      </div>
      <p class="rtc-said" role="status">
        {copied}
      </p>
      <Picture url={way.url} label={trans.__("QR code of the link")} />
      <p class="rtc-hint">{hintOf(way, env)}</p>
      <div class="rtc-buttons">
        <button type="button" class="jp-Dialog-button jp-mod-accept jp-mod-styled" onClick={close}>
          {trans.__("Done")}
        </button>
      </div>
    </div>
  );
}

/** What is to be known of the way that is chosen, in a line. */
function hintOf(way: Way, { trans }: PanelEnv): string {
  if (way.kind === "server" && !way.isLocal) {
    return trans.__("Whoever opens it has to be logged in to this Jupyter server. The link is shown only now.");
  }
  if (!way.isLocal) return trans.__("Scan it with a phone. The link is shown only now: it is not kept.");
  const { hostname } = new URL(way.url);
  if (way.kind === "server") {
    return trans.__("%1 is this machine alone, which a phone does not reach: open JupyterLab by its name.", hostname);
  }
  return trans.__(
    "A phone does not reach %1, the kernel's machine itself: install jupyter-server-proxy, or set RTCKernel.ip and restart the kernel.",
    hostname,
  );
}

function Picture({ url, label }: { url: string; label: string }): JSX.Element {
  const { size, path } = drawQr(url);
  return (
    <svg class="rtc-qr" viewBox={`0 0 ${size} ${size}`} role="img" aria-label={label} shape-rendering="crispEdges">
      <rect width={size} height={size} fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}

/** Pages that came over plain HTTP from another host have no clipboard but the old one. */
async function copyText(field: HTMLInputElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch {
    field.select();
    return field.ownerDocument.execCommand("copy");
  }
}
