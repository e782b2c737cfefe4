/** Text from elsewhere as JSON in which everything can be seen: what hides, moves a cursor or turns the reading direction is escaped. */

/** Everything that a terminal would not show as itself, besides the plain space. */
const hidden = /\p{C}|\p{Zl}|\p{Zp}|(?! )\p{Zs}|\p{Default_Ignorable_Code_Point}/gu;

/** JSON text that means the same and hides nothing. */
export const visibleJson = (json: string): string =>
  json.replace(hidden, (char) =>
    [...Array(char.length).keys()].map((at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`).join(""),
  );

/** A name: bare where it is plain, else quoted. */
export const visibleName = (text: string): string =>
  /^[\w.:/@+-]+$/.test(text) ? text : visibleJson(JSON.stringify(text));
