// Starts the page.
//
// state.js     the state, and how it changes       api.js       calls of the public API, with the session's key
// form.js      values, errors, the request         schema.js    reads a model's JSON Schema
// fields.js    where fields are shown              pictures.js  input images
// jobs.js      one's jobs and their event streams  service.js   models, workers, readiness
// mask.js      the painted mask                    intake.js    files that are dropped, pasted or opened
// metadata.js  parameters inside image files       infotext.js  the line of parameters of A1111's web UI
// views/       what all of it looks like

import { Away, Problem } from "./api.js";
import { restore } from "./form.js";
import { takeFiles } from "./intake.js";
import { restorePrompts, watch } from "./jobs.js";
import { watchService } from "./service.js";
import { onChange, say, state } from "./state.js";
import { openDialogs } from "./views/detail.js";
import { render } from "./views/html.js";
import { pageView } from "./views/page.js";

restore();
restorePrompts();
onChange(() => {
  render(pageView(state), document.body);
  openDialogs(state);
});
takeFiles();
document.addEventListener("visibilitychange", () => watch());
addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Problem || event.reason instanceof Away)) return;
  event.preventDefault();
  say(event.reason.message);
});
watchService();
watch();
