// The whole page: the form, one's images, and the service, or the question for a key.

import { forgetKey, hasKey } from "../api.js";
import { isActive } from "../jobs.js";
import { detailView } from "./detail.js";
import { formView } from "./form.js";
import { galleryView } from "./gallery.js";
import { html, nothing } from "./html.js";
import { keyView } from "./key.js";
import { serviceView } from "./service.js";

export function pageView(state) {
  if (state.access.asked) return keyView(state);
  return html`
    <a class="skip" href="#images">Skip to the images</a>
    ${headerView(state)}
    <main>
      <section id="create" aria-label="New image">${formView(state)}</section>
      <section id="images" aria-label="Images" tabindex="-1">${galleryView(state)}</section>
      <aside id="service" aria-label="Service">${serviceView(state)}</aside>
    </main>
    <nav class="places" aria-label="Parts of the page">
      <a href="#create">Create</a><a href="#images">Images</a><a href="#service">Service</a>
    </nav>
    ${detailView(state)}
    ${state.dropping ? html`<div class="veil" aria-hidden="true">Drop an image to read its parameters</div>` : nothing}
  `;
}

function headerView(state) {
  return html`
    <header class="top">
      <h1><img src="page/icon.svg" alt="" width="26" height="26" />Darkroom</h1>
      <p class="said" role="status">${state.said}</p>
      <p class="health" data-state=${healthOf(state)}>${healthText(state)}</p>
      ${hasKey() ? html`<button type="button" class="quiet" @click=${forgetKey}>Forget key</button>` : nothing}
      <a class="quiet" href="docs">API</a>
    </header>
    ${state.away ? html`<p class="banner" role="alert">The service does not answer. Trying again…</p>` : nothing}
    ${!state.away && state.trouble ? html`<p class="banner" role="alert">Jobs wait: ${state.trouble}</p>` : nothing}
  `;
}

function healthOf(state) {
  if (state.away) return "away";
  return state.trouble ? "troubled" : "ready";
}

function healthText(state) {
  if (state.away) return "Away";
  if (state.trouble) return "Not ready";
  const active = [...state.jobs.values()].filter(isActive).length;
  return active ? `Ready, ${active} ${active === 1 ? "job" : "jobs"}` : "Ready";
}
