// Swagger UI over the service's own description. Nothing is asked of another host: the badge that would
// have the description validated elsewhere is off.
"use strict";

SwaggerUIBundle({
  url: "/openapi.json",
  domNode: document.getElementById("documentation"),
  deepLinking: true,
  displayRequestDuration: true,
  // Shows at once what there is, and nothing that takes a second to lay out.
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  validatorUrl: null,
});
