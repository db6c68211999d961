/** Where the page begins. */

import { connect, WebSocketTransport } from "@rtc-kernel/client";
import { render } from "preact";
import { App } from "./App.tsx";
import { beginWithNotebook, followAddress, makePlace } from "./page.ts";
import { Session } from "./session.ts";
import "./parts.css";
import "./page.css";

const host = document.getElementById("page");
if (!host) throw new Error("index.html has no #page");
const doc = connect(new WebSocketTransport({ url: new URL(".", location.href).href }));
const session = new Session(doc, makePlace(doc));
beginWithNotebook(session);
render(<App session={session} />, host);
followAddress(session);
