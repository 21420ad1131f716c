// What an outsider's program may do: claim with a signature made elsewhere, then read all there is.
import { taskServer, type Noun } from "athena-task-server-client";

declare const process: { argv: string[] };

type Given = { url: string; key: string; headers: Record<string, string>; page: number };
const given = JSON.parse(process.argv[2] ?? "") as Given;
const reader = taskServer(given.url);
const miner = taskServer(given.url, (method, target, body) => {
  const text = new TextDecoder().decode(body);
  if (`${method} ${target} ${text}` !== 'POST /v1/leases {"count":2}') throw new Error(`not what was signed: ${text}`);
  return given.headers;
});

function found<T>(reply: { data?: T; error?: Noun["Problem"] }): T {
  if (reply.data === undefined) throw new Error(reply.error?.code);
  return reply.data;
}

const claim = { params: { header: { "Idempotency-Key": given.key } }, body: { count: 2 } };
const { leases: claimed } = found(await miner.POST("/v1/leases", claim));
const refused = await reader.POST("/v1/leases", claim);

const pages: Noun["TaskView"][][] = [];
let cursor: string | null = null;
do {
  const query: { limit: number; cursor: string | null } = { limit: given.page, cursor };
  const page: Noun["Page_TaskView_"] = found(await reader.GET("/v1/tasks", { params: { query } }));
  pages.push(page.items);
  cursor = page.next;
} while (cursor !== null);

const states: Noun["Lease"]["state"][] = claimed.map((lease) => lease.state);
const state = states[0] ?? "released";
const active = found(await reader.GET("/v1/leases", { params: { query: { state } } })).items;
const server: Noun["ServerInfo"] = found(await reader.GET("/v1/server"));
const stats: Noun["Stats"] = found(await reader.GET("/v1/stats"));
const refusal = { status: refused.response.status, code: refused.error?.code };
console.log(JSON.stringify({ claimed, refusal, pages, active, server, stats }));
