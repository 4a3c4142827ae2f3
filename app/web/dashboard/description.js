// The service's own description, as people look at it.

/** Without what only programs ask for, and with a transaction of now as the example. */
export async function describe() {
  const told = await (await fetch("/openapi.json")).json();
  // To ask by HEAD is to ask by GET and not to read the answer.
  for (const methods of Object.values(told.paths)) delete methods.head;
  for (const { properties } of Object.values(told.components.schemas)) {
    if (properties?.amount && properties.timestamp?.examples) {
      properties.timestamp.examples = [new Date().toISOString()];
    }
  }
  return told;
}
