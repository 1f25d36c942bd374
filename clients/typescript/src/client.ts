// Calls of one Darkroom service, and `run`, which submits a job, waits for it and returns its files.
//
// Whatever can be repeated is: a submission carries an idempotency key, so it never makes two jobs.

import { DarkroomError, errorOfJob, errorOfResponse } from "./error.js";
import { ENDS, eventOfJob, type JobEvent, readEvents } from "./events.js";
import type { Job, JobRequest } from "./types.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2_000;
/** Longest wait that the service grants in one call. */
const HOLD_SECONDS = 60;
/** A stream is silent for less: the service sends a comment every 15 s. */
const SILENCE_MS = 60_000;
const UPLOAD_MS = 600_000;

export interface Options {
  /** API key; without one only a service that has no keys can be called. */
  key?: string;
  /** Time limit of one call, not of a job. */
  timeoutMs?: number;
  /** How often a call is repeated that got no answer, or one that says to come back. */
  retries?: number;
  /** Another `fetch`, for proxies or tests. */
  fetch?: typeof fetch;
}

export interface RunOptions {
  /**
   * `poll` asks again and again, `stream` follows the job's events, `wait` lets the service answer at the end and polls
   * if that takes longer than a minute. Each gives the same result. Default: `poll`.
   */
  wait?: "poll" | "stream" | "wait";
  /** Called with what happens; with `wait` only from its second minute on. */
  onEvent?: (event: JobEvent) => void;
  /** Ends the wait, and cancels the job. `AbortSignal.timeout(ms)` is a time limit. */
  signal?: AbortSignal;
  /** By which a repeated call finds the same job. Default: one that is made for the repetitions in this call. */
  idempotencyKey?: string;
}

/** A completed job, with its receipt, and its files in the format that was asked for. */
export interface Result {
  job: Job;
  images: Uint8Array<ArrayBuffer>[];
}

interface Call {
  headers?: Record<string, string>;
  body?: BodyInit;
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

/** A client of one service. Every method rejects with a DarkroomError, or with the reason of an aborted signal. */
export class Darkroom {
  readonly url: string;
  readonly #headers: Record<string, string>;
  readonly #timeoutMs: number;
  readonly #retries: number;
  readonly #fetch: typeof fetch;

  constructor(url: string, options: Options = {}) {
    this.url = url.replace(/\/+$/, "");
    this.#headers = options.key === undefined ? {} : { Authorization: `Bearer ${options.key}` };
    this.#timeoutMs = options.timeoutMs ?? 30_000;
    this.#retries = options.retries ?? 5;
    this.#fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  /** Submit a job, wait for its end, and download its images. A job whose wait is aborted is cancelled. */
  async run(request: JobRequest, options: RunOptions = {}): Promise<Result> {
    const { wait = "poll", onEvent = () => undefined, signal, idempotencyKey = crypto.randomUUID() } = options;
    // Until there is an answer nobody knows the job's id, and so could cancel it.
    const body = wait === "wait" ? { cancel_on_disconnect: true, ...request } : request;
    let job = await this.#submit(body, idempotencyKey, wait === "wait" ? HOLD_SECONDS : 0, signal);
    try {
      job = wait === "stream" ? await this.#follow(job, onEvent, signal) : await this.#poll(job, onEvent, signal);
    } catch (error) {
      await this.cancel(job.id).catch(() => undefined);
      throw error;
    }
    if (job.status !== "completed") throw errorOfJob(job);
    const images = await Promise.all(job.images.map((image) => this.download(image.url, signal)));
    return { job, images };
  }

  /** Submit a job and return it as it was accepted. */
  submit(request: JobRequest, idempotencyKey: string = crypto.randomUUID()): Promise<Job> {
    return this.#submit(request, idempotencyKey, 0, undefined);
  }

  /** Return a job as it is now. */
  job(id: string): Promise<Job> {
    return this.call("GET", `/v1/jobs/${id}`);
  }

  /** Cancel a job: at once while it waits, within one denoising step while it runs. */
  cancel(id: string): Promise<Job> {
    return this.call("POST", `/v1/jobs/${id}/cancel`);
  }

  /** Upload an image and return the id (`upload:…`) by which requests name it. */
  async upload(image: Blob | Uint8Array<ArrayBuffer>): Promise<string> {
    const headers = { "Content-Type": "application/octet-stream" };
    const response = await this.#request("POST", "/v1/uploads", { headers, body: image, timeoutMs: UPLOAD_MS });
    return ((await response.json()) as { id: string }).id;
  }

  /** Return the bytes of an image. Its link is signed and may lead to a bucket: the API key is not sent. */
  async download(url: string, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const response = await this.#request("GET", url, { signal });
    return new Uint8Array(await response.arrayBuffer());
  }

  /** Call any path of the service, with a JSON body if one is given, and return the JSON of the answer. */
  async call<T>(method: string, path: string, json?: unknown): Promise<T> {
    const given = json === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(json) };
    const text = await (await this.#request(method, path, given)).text();
    return (text === "" ? undefined : JSON.parse(text)) as T;
  }

  async #submit(body: JobRequest, key: string, waitSeconds: number, signal: AbortSignal | undefined): Promise<Job> {
    const headers: Record<string, string> = { "Content-Type": "application/json", "Idempotency-Key": key };
    if (waitSeconds > 0) headers["Prefer"] = `wait=${waitSeconds}`;
    const timeoutMs = this.#timeoutMs + 1000 * waitSeconds;
    const call = { headers, body: JSON.stringify(body), timeoutMs, signal };
    return (await (await this.#request("POST", "/v1/jobs", call)).json()) as Job;
  }

  /** Ask for the job until it has ended: less often while it waits, for that may take long. */
  async #poll(job: Job, tell: (event: JobEvent) => void, signal: AbortSignal | undefined): Promise<Job> {
    let told = "";
    for (let pauseMs = FIRST_PAUSE_MS; ; ) {
      const event = eventOfJob(job);
      if (JSON.stringify(event) !== told) tell(event);
      if (ENDS.has(job.status)) return job;
      told = JSON.stringify(event);
      await sleep(pauseMs, signal);
      pauseMs = job.status === "queued" ? Math.min(LONGEST_PAUSE_MS, 1.3 * pauseMs) : FIRST_PAUSE_MS;
      job = (await (await this.#request("GET", `/v1/jobs/${job.id}`, { signal })).json()) as Job;
    }
  }

  /** Follow the job's events up to its end; poll where streams do not work. */
  async #follow(job: Job, tell: (event: JobEvent) => void, signal: AbortSignal | undefined): Promise<Job> {
    for await (const event of this.#events(job.id, signal)) {
      tell(event);
      if (ENDS.has(event.kind)) return (event.data["job"] as Job | null) ?? (await this.job(job.id));
    }
    return this.#poll(job, tell, signal);
  }

  /** Yield a job's events, after a broken stream from where it stopped; stop early where that fails too often. */
  async *#events(id: string, signal: AbortSignal | undefined): AsyncGenerator<JobEvent> {
    let lastId = "";
    for (let failures = 0; failures <= this.#retries; ) {
      const silence = new Silence();
      try {
        const headers = { ...this.#headers, Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) };
        const signals = signal === undefined ? [silence.signal] : [silence.signal, signal];
        const url = `${this.url}/v1/jobs/${id}/events`;
        const response = await this.#fetch(url, { headers, signal: AbortSignal.any(signals) });
        if (response.status !== 200 || response.body === null) return;
        for await (const event of readEvents(response.body, () => silence.restart())) {
          lastId = event.id || lastId;
          failures = 0;
          yield event;
        }
      } catch {
        signal?.throwIfAborted();
      } finally {
        silence.end();
      }
      failures += 1;
      await sleep(backoffMs(failures), signal);
    }
  }

  /** Call until there is an answer; the key goes to the service's own paths only. */
  async #request(method: string, path: string, call: Call): Promise<Response> {
    const isOwn = path.startsWith("/");
    const headers = { ...(isOwn ? this.#headers : {}), ...call.headers };
    const url = isOwn ? `${this.url}${path}` : path;
    for (let attempt = 1; ; attempt++) {
      call.signal?.throwIfAborted();
      const limit = AbortSignal.timeout(call.timeoutMs ?? this.#timeoutMs);
      const signal = call.signal === undefined ? limit : AbortSignal.any([limit, call.signal]);
      let failure: DarkroomError;
      try {
        const response = await this.#fetch(url, { method, headers, body: call.body ?? null, signal });
        if (response.ok) return response;
        failure = await errorOfResponse(response);
      } catch (error) {
        call.signal?.throwIfAborted();
        failure = new DarkroomError("no_answer", `${url} does not answer: ${String(error)}`, { cause: error });
      }
      // The first call may still be accepted when the second one comes.
      const isRaced = failure.status === 409 && "Idempotency-Key" in headers;
      if (attempt > this.#retries || !(failure.isTemporary || isRaced)) throw failure;
      await sleep(Math.max(failure.retryAfterMs ?? 0, backoffMs(attempt)), call.signal);
    }
  }
}

/** Aborts its signal when nothing has come for too long. */
class Silence {
  readonly #controller = new AbortController();
  #timer = setTimeout(() => this.#controller.abort(), SILENCE_MS);

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(), SILENCE_MS);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

/** Pause after the attempt of this number, from 1: twice as long each time, and random, so that clients spread. */
function backoffMs(attempt: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}
