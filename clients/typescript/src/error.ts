// The one error of this package, and how it is made from what the service answers.

import type { Job } from "./types.js";

/** Statuses after which the same call may succeed. */
const TEMPORARY = new Set([408, 429, 502, 503, 504]);

/** One thing that is wrong with one field of a request; `allowed` where the accepted values can be listed. */
export interface FieldError {
  field: string;
  message: string;
  allowed?: unknown;
}

interface Details {
  type?: string;
  title?: string;
  status?: number;
  errors?: FieldError[];
  requestId?: string;
  retryAfterMs?: number;
  job?: Job;
  cause?: unknown;
}

/**
 * A call that was refused or not answered, or a job that did not complete.
 *
 * `code` is stable: the service's own (`invalid_request`), a failed job's (`out_of_memory`), `cancelled`; or
 * `no_answer`, `timeout`, `bad_signature`, which only this package uses. The rest is what the service sent as problem
 * details (RFC 9457), and the job, where it is one that did not complete.
 */
export class DarkroomError extends Error {
  override readonly name = "DarkroomError";
  readonly type: string;
  readonly title: string;
  readonly status: number | undefined;
  readonly errors: readonly FieldError[];
  readonly requestId: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly job: Job | undefined;

  constructor(
    readonly code: string,
    readonly detail: string,
    details: Details = {},
  ) {
    super(`${code}: ${detail}`, { cause: details.cause });
    this.type = details.type ?? "about:blank";
    this.title = details.title ?? "";
    this.status = details.status;
    this.errors = details.errors ?? [];
    this.requestId = details.requestId;
    this.retryAfterMs = details.retryAfterMs;
    this.job = details.job;
  }

  /** Field -> what is wrong with it. */
  get errorsByField(): Record<string, string[]> {
    const found: Record<string, string[]> = {};
    for (const { field, message } of this.errors) (found[field] ??= []).push(message);
    return found;
  }

  /** Whether the same call may succeed later. */
  get isTemporary(): boolean {
    return this.code === "no_answer" || TEMPORARY.has(this.status ?? 0);
  }
}

/** The error that a response reports; a proxy's page is one without a problem. */
export async function errorOfResponse(response: Response): Promise<DarkroomError> {
  const problem = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return new DarkroomError(
    problem?.code ?? `http_${response.status}`,
    problem?.detail ?? `${response.status} ${response.statusText}`,
    {
      type: problem?.type ?? "about:blank",
      title: problem?.title ?? response.statusText,
      status: response.status,
      errors: Array.isArray(problem?.errors) ? problem.errors : [],
      requestId: problem?.request_id ?? response.headers.get("x-request-id") ?? "",
      ...(Number.isFinite(seconds) ? { retryAfterMs: 1000 * seconds } : {}),
    },
  );
}

/** The error of a job that failed or was cancelled. */
export function errorOfJob(job: Job): DarkroomError {
  const title = job.status === "cancelled" ? "Job cancelled" : "Job failed";
  const { code, message } = job.error ?? { code: "cancelled", message: `job ${job.id} was cancelled` };
  return new DarkroomError(code, message, { title, job });
}
