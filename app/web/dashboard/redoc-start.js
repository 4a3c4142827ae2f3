// ReDoc. Its search would start a worker from an address made up on the spot, which the page's policy does
// not allow, and its fonts are those of the machine.

import { describe } from "./description.js";

/* global Redoc */

const fontFamily = "system-ui, sans-serif";

Redoc.init(
  await describe(),
  {
    disableSearch: true,
    downloadUrls: [{ title: "openapi.json", url: "/openapi.json" }],
    theme: {
      typography: { fontFamily, headings: { fontFamily }, code: { fontFamily: "ui-monospace, monospace" } },
    },
  },
  document.getElementById("documentation"),
);
