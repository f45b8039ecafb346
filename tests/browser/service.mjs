// The service behind the console: commands of a reader, and the database, in which tests
// create what no client can.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import pg from "pg";

/** A new reader with a session. Returns the ids of both. */
export async function readerWithSession() {
  const reader = randomUUID();
  const token = execFileSync(process.env.SERVICE, ["token", "--user", reader], { encoding: "utf8" }).trim();
  const call = async (method, path, body) => {
    const response = await fetch(`${process.env.BASE_URL}/api/v1/reading-sessions${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    assert.ok(response.ok, `${method} ${path}: ${response.status}`);
    return response.json();
  };
  const { id } = await call("POST", "/start", { book_id: randomUUID() });
  for (const current_position of [10, 20, 30]) await call("PUT", `/${id}/update`, { current_position });
  return { reader, session: id };
}

/** The newest snapshot of the live updates. */
export async function liveSnapshot() {
  const { ADMIN_URL, ADMIN_TOKEN } = process.env;
  const stop = new AbortController();
  const response = await fetch(`${ADMIN_URL}/api/v1/admin/live`, {
    headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
    signal: stop.signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n\n")) text += (await reader.read()).value;
  stop.abort();
  return JSON.parse(text.split("\n\n")[0].split("\ndata: ")[1]);
}

/** Runs statements as the superuser. */
export async function database(work) {
  const client = new pg.Client({ connectionString: process.env.SUPERUSER_DATABASE_URL });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Appends an event of a version that this build cannot read. Returns its global position. */
export const appendUnreadable = (session) =>
  database(async (client) => {
    const { rows } = await client.query(
      `insert into public.events
          (aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata)
      select aggregate_id, sequence + 1, aggregate_type, event_type, '99', payload, metadata
      from public.events where aggregate_id = $1 order by sequence desc limit 1
      returning global_position`,
      [session],
    );
    return rows[0].global_position;
  });

/** Keeps the table of a projection in use, so that a replay cannot complete, during `work`. */
export const withTableInUse = (work) =>
  database(async (client) => {
    await client.query("begin");
    await client.query("select from read.history limit 1");
    try {
      return await work();
    } finally {
      await client.query("rollback");
    }
  });
