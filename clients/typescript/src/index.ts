// TypeScript client of Darkroom: submits image jobs, waits for them, and returns their files. Needs only `fetch`.
//
// client.ts    the calls, and `run`
// error.ts     the one error
// events.ts    what happens to a job, and how event streams are read
// webhooks.ts  checks the signatures of webhooks
// schema.ts    types of requests and answers, generated from the service's OpenAPI document by `make clients`

export { Darkroom, type Options, type Result, type RunOptions } from "./client.js";
export { DarkroomError, type FieldError } from "./error.js";
export type { JobEvent } from "./events.js";
export type { Job, JobRequest } from "./types.js";
export { verifyWebhook } from "./webhooks.js";
