// Swagger UI. Nothing is asked of another host: the badge that would have the description validated
// elsewhere is off.

import { describe } from "./description.js";

/* global SwaggerUIBundle */

SwaggerUIBundle({
  spec: await describe(),
  domNode: document.getElementById("documentation"),
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  validatorUrl: null,
});
