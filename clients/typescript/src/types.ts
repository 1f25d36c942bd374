// Names for the generated types that the calls use.

import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** A request of any task, which its `task` names. */
export type JobRequest =
  | Schemas["Txt2ImgRequest"]
  | Schemas["Img2ImgRequest"]
  | Schemas["InpaintRequest"]
  | Schemas["ControlNetRequest"]
  | Schemas["EditRequest"];

/** A job as the service shows it. */
export type Job = Schemas["JobView"];
