// Shows the OpenAPI document with Swagger UI. All addresses are relative to the page, so that it works behind a path prefix.
"use strict";

const base = new URL(".", document.baseURI).href.replace(/\/$/, "");

// Swagger UI fills every field of a form with a made-up value, and sends fields that are left empty. Here optional
// fields start empty, and are not sent unless the box below them is ticked.
function emptyOptionalFields(spec) {
  for (const methods of Object.values(spec.paths)) {
    for (const operation of Object.values(methods)) {
      let schema = operation.requestBody?.content?.["multipart/form-data"]?.schema ?? {};
      if (schema.$ref) schema = spec.components.schemas[schema.$ref.split("/").pop()];
      for (const [name, property] of Object.entries(schema.properties ?? {})) {
        if (!schema.required?.includes(name) && !property.examples) property.example = "";
      }
    }
  }
  return spec;
}

const leaveOutEmptyFields = {
  wrapComponents: {
    ParameterIncludeEmpty: (Original, { React }) => ({ isIncludedOptions, ...others }) =>
      React.createElement(Original, {
        ...others,
        isIncludedOptions: { ...isIncludedOptions, defaultValue: false },
      }),
  },
};

fetch("openapi.json")
  .then((response) => response.json())
  .then((spec) => {
    SwaggerUIBundle({
      dom_id: "#swagger-ui",
      // Calls go to the service that served the page, under the address by which the browser reached it.
      spec: { ...emptyOptionalFields(spec), servers: [{ url: base }] },
      plugins: [leaveOutEmptyFields],
      deepLinking: true,
      displayRequestDuration: true,
      validatorUrl: null, // it would send the document to a host on the internet
    });
  })
  .catch((error) => {
    document.getElementById("swagger-ui").textContent = `openapi.json could not be read: ${error.message}`;
  });
