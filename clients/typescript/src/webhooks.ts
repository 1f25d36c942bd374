// Checks webhooks that Darkroom signed, by Standard Webhooks 1.0. Receives nothing itself.

import { DarkroomError } from "./error.js";
import type { Job } from "./types.js";

/**
 * Return the job that a webhook reports, if it was signed with the secret (`whsec_…`, from `GET /v1/webhooks/secret`).
 *
 * `body` is that of the request as it was received. Rejects with a DarkroomError of code `bad_signature`: the body may be
 * anybody's then, and must not be used. So it is when its time is further from this machine's clock than the tolerance.
 */
export async function verifyWebhook(
  body: string,
  headers: Headers | Record<string, string>,
  secret: string,
  toleranceMs = 300_000,
): Promise<Job> {
  const given = new Headers(headers);
  const timestamp = given.get("webhook-timestamp") ?? "";
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() - 1000 * Number(timestamp)) > toleranceMs) {
    throw new DarkroomError("bad_signature", "webhook-timestamp is missing or too far from now");
  }
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", decode(secret.replace(/^whsec_/, "")), algorithm, false, ["verify"]);
  const signed = new TextEncoder().encode(`${given.get("webhook-id") ?? ""}.${timestamp}.${body}`);
  for (const signature of (given.get("webhook-signature") ?? "").split(" ")) {
    if (!/^v1,[A-Za-z0-9+/]+=*$/.test(signature)) continue;
    if (await crypto.subtle.verify("HMAC", key, decode(signature.slice(3)), signed)) return JSON.parse(body) as Job;
  }
  throw new DarkroomError("bad_signature", "no signature of webhook-signature is that of this body and secret");
}

function decode(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
