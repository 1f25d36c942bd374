// What happens to a job, and how a stream of server-sent events is read. Calls nothing.

import type { Job } from "./types.js";

export const ENDS: ReadonlySet<string> = new Set(["completed", "failed", "cancelled"]);

/**
 * One thing that happened to a job.
 *
 * `kind` is `queued`, `preparing`, `started`, `progress`, `preview`, and finally `completed`, `failed` or `cancelled`;
 * one that is not listed comes from a newer service. `data` is what the service says of it, such as `step` and `steps`;
 * a preview has its image in `url`. `id` is the position in the stream, empty for what polling found.
 */
export interface JobEvent {
  kind: string;
  data: Record<string, unknown>;
  id: string;
}

/** Yield the events of a stream (WHATWG HTML, 9.2.6). `onData` is called whenever something comes, a comment too. */
export async function* readEvents(body: ReadableStream<Uint8Array>, onData: () => void): AsyncGenerator<JobEvent> {
  let kind = "";
  let id = "";
  let data: string[] = [];
  for await (const line of readLines(body, onData)) {
    if (line === "") {
      if (data.length > 0) yield { kind, data: JSON.parse(data.join("\n")), id };
      kind = "";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") kind = value;
    else if (name === "id") id = value;
    else if (name === "data") data.push(value);
  }
}

async function* readLines(body: ReadableStream<Uint8Array>, onData: () => void): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      onData();
      if (done) return; // what is left is no whole line: the stream broke
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield line.replace(/\r$/, "");
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** What polling finds, as an event: the job's status is its kind, unless it is running. */
export function eventOfJob(job: Job): JobEvent {
  const kind = job.status === "running" ? "progress" : job.status;
  return { kind, data: { status: job.status, ...job.progress }, id: "" };
}
