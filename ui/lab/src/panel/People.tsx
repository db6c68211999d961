/** Who is here, and by which links may others come? */

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Link, Links, Peer } from "@rtc-kernel/client";

import { channel, linksChanged, message } from "./doors.ts";
import type { PanelEnv } from "./env.ts";
import { clock, roleWord, untilWhen } from "./links.ts";
import { type Here, whoIsHere } from "./here.ts";
import { openShare } from "./Share.tsx";
import { putStyle } from "./style.ts";

/**
 * The agent says nothing unasked of who came and went, so it is asked: at once when something tells that it may be
 * other, and so often while somebody looks. Seconds.
 */
const ASK_S = 10;

/** Whether the list is open; it stays so when the document is another one, as after a restart. */
const isOpen = signal(false);

/** The link that is about to be withdrawn. */
const doomed = signal<string | null>(null);

export function People({ env }: { env: PanelEnv }): JSX.Element {
  const { trans } = env;
  const host = useRef<HTMLDetailsElement>(null);
  const [{ links, peers }, setLinks] = useState<Links>({ links: [], peers: [] });
  const [problem, setProblem] = useState("");
  useEffect(() => {
    if (host.current === null) return undefined;
    putStyle(host.current);
    return keepAsking(env, host.current, (found) => {
      setProblem(typeof found === "string" ? found : "");
      if (typeof found !== "string") setLinks(found);
    });
  }, [env]);
  const here = whoIsHere(peers);
  return (
    <details
      class="rtc-Lists rtc-People"
      ref={host}
      open={isOpen.value}
      onToggle={(event) => {
        isOpen.value = event.currentTarget.open;
      }}
    >
      <summary>
        {trans._n("%1 here", "%1 here", here.length)}
        {" · "}
        {trans._n("%1 link", "%1 links", links.length)}
      </summary>
      <h3>{trans.__("Here now")}</h3>
      <ul class="rtc-here">
        {here.map((one) => (
          <Person key={one.key} one={one} env={env} />
        ))}
      </ul>
      <h3>{trans.__("Links")}</h3>
      {links.length === 0 ? <p class="rtc-dim">{trans.__("none: nobody else can come")}</p> : null}
      <ul class="rtc-links">
        {links.map((link) => (
          <LinkRow key={link.name} link={link} env={env} peers={peers} tell={setLinks} />
        ))}
      </ul>
      {problem ? (
        <p class="rtc-problem" role="alert">
          {problem}
        </p>
      ) : null}
      <p>
        <button type="button" onClick={() => openShare(env)}>
          {trans.__("Share…")}
        </button>
      </p>
    </details>
  );
}

function Person({ one, env: { doc, trans, userName } }: { one: Here; env: PanelEnv }): JSX.Element {
  const { name, role, since, count, isPage } = one;
  const isUs = isPage && [userName(), doc.name].includes(name);
  const words = [isPage ? trans.__("in Jupyter") : roleWord(role, trans), trans.__("since %1", clock(since))];
  if (count > 1) words.push(trans._n("%1 page", "%1 pages", count));
  const said = isPage && name === "username" ? "" : name; // JupyterLab's own clients have no name
  return (
    <li>
      <span class="rtc-what">{isUs ? trans.__("%1 (you)", said).trim() : said || trans.__("somebody")}</span>
      <span class="rtc-dim">{words.join(" · ")}</span>
    </li>
  );
}

interface LinkRowProps {
  link: Link;
  env: PanelEnv;
  peers: readonly Peer[];
  tell: (links: Links) => void;
}

/** A link; to withdraw it is asked for twice, because whoever has it cannot come back. */
function LinkRow({ link, env, peers, tell }: LinkRowProps): JSX.Element {
  const { trans } = env;
  const isDoomed = doomed.value === link.name;
  const [isAsking, setAsking] = useState(false);
  const [problem, setProblem] = useState("");
  const first = useRef<HTMLButtonElement>(null);
  const yes = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (isDoomed) yes.current?.focus();
  }, [isDoomed]);
  const keep = (): void => {
    doomed.value = null;
    requestAnimationFrame(() => first.current?.focus());
  };
  const withdraw = async (): Promise<void> => {
    setAsking(true);
    setProblem("");
    try {
      tell(await channel(env).unshare(link.name));
      linksChanged.value++;
    } catch (error) {
      setProblem(message(error));
    }
    setAsking(false);
    doomed.value = null;
  };
  const here = peers.filter(({ name, way }) => way !== "comm" && name === link.name).length;
  if (isDoomed) {
    return (
      <li
        class="rtc-sure"
        onKeyDown={(event) => {
          if (event.key === "Escape") keep();
        }}
      >
        <span class="rtc-what">
          {here > 0
            ? trans.__("Withdraw the link of %1? Who follows by it now is cut off.", link.name)
            : trans.__("Withdraw the link of %1?", link.name)}
        </span>
        <span class="rtc-deeds">
          <button ref={yes} type="button" class="rtc-danger" disabled={isAsking} onClick={() => void withdraw()}>
            {trans.__("Withdraw")}
          </button>
          <button type="button" disabled={isAsking} onClick={keep}>
            {trans.__("Keep")}
          </button>
        </span>
      </li>
    );
  }
  const words = [roleWord(link.role, trans), untilWhen(link.expires_at, trans)];
  words.push(here === 0 ? trans.__("not here") : trans._n("%1 here", "%1 here", here));
  return (
    <li>
      <span class="rtc-what">{link.name}</span>
      <span class="rtc-dim">{words.join(" · ")}</span>
      <button
        ref={first}
        type="button"
        aria-label={trans.__("Withdraw the link of %1", link.name)}
        onClick={() => {
          doomed.value = link.name;
        }}
      >
        {trans.__("Withdraw")}
      </button>
      {problem ? (
        <span class="rtc-problem" role="alert">
          {problem}
        </span>
      ) : null}
    </li>
  );
}

/** Tell who is here, now and whenever it may be other, while the element is seen; returns how to end it. */
function keepAsking(env: PanelEnv, host: HTMLElement, tell: (found: Links | string) => void): () => void {
  const { doc } = env;
  let isSeen = false;
  let isAsking = false;
  let isOver = false;
  let isStale = true;
  const ask = async (): Promise<void> => {
    isStale = true;
    if (isAsking || !isSeen || isOver || document.hidden || doc.status !== "live") return;
    isAsking = true;
    while (isStale) {
      isStale = false;
      const found = await channel(env)
        .links()
        .catch((error: unknown) => message(error));
      if (!isOver) tell(found);
    }
    isAsking = false;
  };
  const look = (): void => void ask();
  const sight = new IntersectionObserver((entries) => {
    isSeen = entries.at(-1)?.isIntersecting ?? false;
    look();
  });
  sight.observe(host);
  const ends = [
    doc.onStatus(look),
    doc.onChange((change) => {
      if (!change.reset && change.requests.size > 0) look(); // whoever asks is here
    }),
    linksChanged.subscribe(look),
  ];
  const timer = setInterval(look, ASK_S * 1000);
  document.addEventListener("visibilitychange", look);
  return () => {
    isOver = true;
    sight.disconnect();
    clearInterval(timer);
    document.removeEventListener("visibilitychange", look);
    for (const end of ends) end();
  };
}
