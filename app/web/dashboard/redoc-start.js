// ReDoc over the service's own description. Its search would start a worker from a made-up address, which
// the page's policy does not allow, and its fonts are those of the machine.
"use strict";

Redoc.init(
  "/openapi.json",
  {
    disableSearch: true,
    theme: {
      typography: {
        fontFamily: "system-ui, sans-serif",
        headings: { fontFamily: "system-ui, sans-serif" },
        code: { fontFamily: "ui-monospace, monospace" },
      },
    },
  },
  document.getElementById("documentation"),
);
