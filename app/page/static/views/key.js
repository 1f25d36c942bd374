// The question for an API key.

import { enterKey } from "../api.js";
import { html, nothing } from "./html.js";

export function keyView({ access }) {
  return html`
    <main class="gate">
      <form @submit=${submit} aria-labelledby="key-title">
        <h1 id="key-title"><img src="page/icon.svg" alt="" width="26" height="26" />Darkroom</h1>
        <label for="key">API key</label>
        <input
          id="key"
          name="key"
          type="password"
          autocomplete="off"
          spellcheck="false"
          autofocus
          aria-describedby="key-note key-error"
          aria-invalid=${access.message ? "true" : "false"}
        />
        ${access.message ? html`<p id="key-error" class="error" role="alert">${access.message}</p>` : nothing}
        <button class="primary">Enter</button>
        <p id="key-note" class="note">
          It is kept in this tab until the tab is closed. An operator makes one with
          <code>darkroom keys create NAME</code>.
        </p>
      </form>
    </main>
  `;
}

function submit(event) {
  event.preventDefault();
  enterKey(new FormData(event.target).get("key"));
}
