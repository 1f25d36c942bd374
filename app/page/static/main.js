// Starts the page.
//
// state.js     the state, and how it changes       api.js       calls of the public API, with the session's key
// tabs.js      the tabs of the form                form.js      values, errors, the request
// schema.js    reads a JSON Schema of a request    fields.js    where fields are shown
// inputs.js    input images                        examples.js  training images, with captions
// jobs.js      one's jobs and their event streams  history.js   losses and samples of trainings
// adapters.js  what trainings have made, used      service.js   models, workers, readiness
// mask.js      painted masks                       intake.js    files that are dropped, pasted or opened
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
