import { connect, WebSocketTransport } from "@rtc-kernel/client";
import { WebSocket } from "ws"; // Node.js before 22 has none; leave it out elsewhere

const link = process.env["RTC_LINK"] ?? ""; // http://127.0.0.1:PORT/?token=…, from %rtc share --role run
const doc = connect(new WebSocketTransport({ url: link, WebSocket }));
doc.onChange((change) => {
  if (change.reset) console.log(doc.executions.size, "executions");
  else for (const [id] of change.executions) console.log(id, doc.executions.get(id)?.state);
});
const run = await doc.run("print('hello'); 6 * 7");
console.log((await run.ended()).outputs);
doc.close();
