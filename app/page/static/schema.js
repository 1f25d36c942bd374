// Reads the JSON Schema of a request: which kind of field each property is, and what it allows. Knows no view.

const IMAGES = new Set(["image", "mask_image", "control_image", "conditioning_image"]);
const LONG_TEXT = 1000; // characters from which a text has several lines

// A property with its reference followed and without the null of an optional one; its own words win.
export function resolve(part, schema) {
  const { anyOf, $ref, ...own } = part;
  let found = own;
  const branch = anyOf?.find((one) => one.type !== "null");
  if (branch) found = { ...resolve(branch, schema), ...own };
  if ($ref) found = { ...resolve(schema.$defs[$ref.split("/").pop()], schema), ...own };
  return found;
}

// Which widget shows a property; "json" if no other fits.
export function kindOf(name, part) {
  if (IMAGES.has(name) && part.type === "string") return name === "mask_image" ? "mask" : "image";
  if (name === "references") return "images";
  if (name === "preprocess_options") return "options";
  if (part.enum) return "choice";
  if (part.type === "boolean") return "choice";
  if (part.type === "integer" || part.type === "number") return "number";
  if (part.type === "string") return part.maxLength >= LONG_TEXT ? "text" : "line";
  if (part.type === "array" && part.prefixItems) return "tuple";
  if (part.type === "array" && part.items?.enum) return "choices";
  if (part.type === "array" && part.items?.properties) return name === "images" ? "examples" : "list";
  if (name === "sample_prompts") return "lines";
  if (part.type === "object" && part.properties) return "object";
  if (part.type === "object" && part.additionalProperties?.type === "string") return "pairs";
  return "json";
}

// The properties of an object's schema, resolved, entries of lists included.
export function propertiesOf(part, schema) {
  return Object.fromEntries(
    Object.entries(part.properties ?? {}).map(([name, property]) => {
      const resolved = resolve(property, schema);
      if (resolved.items) resolved.items = resolve(resolved.items, schema);
      return [name, resolved];
    }),
  );
}

export function choicesOf(part) {
  return part.type === "boolean" ? [true, false] : part.enum;
}

// What a number may be, in a few characters.
export function rangeOf(part) {
  const low = part.minimum ?? part.exclusiveMinimum;
  if (low === undefined || part.maximum === undefined) return "";
  const above = part.minimum === undefined ? "above " : "";
  return `${above}${low} to ${part.maximum}${part.multipleOf ? `, a multiple of ${part.multipleOf}` : ""}`;
}

// What of a value the schema has fields for, without what is null or the default: other versions may write more.
export function fitting(value, part, schema) {
  if (value === null || value === undefined || !isOfType(value, part.type)) return undefined;
  if (part.enum && !part.enum.includes(value)) return undefined;
  if (part.properties) {
    const parts = propertiesOf(part, schema);
    const kept = Object.entries(value)
      .filter(([name]) => name in parts)
      .map(([name, inner]) => [name, fitting(inner, parts[name], schema)])
      .filter(([name, inner]) => inner !== undefined && !same(inner, parts[name].default));
    return Object.fromEntries(kept);
  }
  if (part.items?.properties) return value.map((entry) => fitting(entry, part.items, schema));
  return value;
}

function isOfType(value, type) {
  if (type === "array") return Array.isArray(value);
  if (type === "integer" || type === "number") return typeof value === "number";
  return type === undefined || typeof value === type;
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}
