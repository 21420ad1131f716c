/**
 * A typed client of Athena's task server. Everyone may read; what is written is signed with a hotkey (btauth/1).
 */
import createClient, { type Client, type ClientOptions, type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type { components, operations, paths } from "./schema.js";

/** The API's nouns by name, such as `Noun["Lease"]`. */
export type Noun = components["schemas"];

export type TaskServer = Client<paths>;

/**
 * Gives the btauth/1 headers that sign a request: its method, its target (path and query as they are sent), its body.
 */
export type Signer = (
  method: string,
  target: string,
  body: Uint8Array,
) => Record<string, string> | Promise<Record<string, string>>;

/** The server at `baseUrl`. With a signer every write is signed, over the very bytes that are sent. */
export function taskServer(baseUrl: string, sign?: Signer, options: Omit<ClientOptions, "baseUrl"> = {}): TaskServer {
  const client = createClient<paths>({ ...options, baseUrl });
  if (sign !== undefined) client.use(signing(sign));
  return client;
}

function signing(sign: Signer): Middleware {
  return {
    async onRequest({ request }) {
      if (request.method === "GET") return undefined;
      const { pathname, search } = new URL(request.url);
      const body = new Uint8Array(await request.clone().arrayBuffer());
      for (const [name, value] of Object.entries(await sign(request.method, pathname + search, body))) {
        request.headers.set(name, value);
      }
      return request;
    },
  };
}
